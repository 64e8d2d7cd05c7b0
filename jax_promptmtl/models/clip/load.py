"""Load a backbone by path: weights, tokenizer, and the pixels that they expect."""

import pathlib

from jax_promptmtl.core.files import ASSETS
from jax_promptmtl.models.clip import convert, pixels, tokenizer
from jax_promptmtl.models.clip.model import Backbone

EMBEDDED = "icon_clip"  # the small CLIP that the package carries


def load(path: str, activation: str = "", tokens: str = "") -> Backbone:
    """Load a CLIP.

    Args:
      path: "icon_clip" for the embedded one; else a folder or file of Hugging Face, open_clip or OpenAI.
      activation: quick_gelu or gelu, where nothing beside the weights tells; else "".
      tokens: path of the tokenizer, where it is not beside the weights; else "".

    Raises:
      UserError: missing, surplus or misshapen weights, no tokenizer, an unknown activation.
    """
    place = ASSETS / EMBEDDED if path == EMBEDDED else pathlib.Path(path).expanduser()
    config, params, sha256 = convert.load(place, activation or None)
    theirs = convert.locate(place).name.startswith("open_clip")
    return Backbone(
        name=path,
        config=config,
        params=params,
        tokenizer=tokenizer.load(tokens or None, place, vocab_size=config.vocab_size),
        preprocess=pixels.declared(place, config.image_size, prefer_open_clip=theirs),
        sha256=sha256,
        tokens=tokens,
    )
