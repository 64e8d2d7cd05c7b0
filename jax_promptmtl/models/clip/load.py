"""Load a backbone by path: weights, tokenizer and pixel statistics."""

import pathlib

from jax_promptmtl.core.files import ASSETS
from jax_promptmtl.models.clip import convert, pixels, tokenizer
from jax_promptmtl.models.clip.model import Backbone
from jax_promptmtl.models.weights import files

EMBEDDED = "icon_clip"  # the small CLIP shipped with the package


def load(path: str, activation: str = "", tokens: str = "") -> Backbone:
    """Load a CLIP.

    Args:
      path: "icon_clip" for the embedded one; else a folder or file of Hugging Face, open_clip or OpenAI.
      activation: quick_gelu or gelu, where no config file beside the weights defines it; else "".
      tokens: path of the tokenizer, where it is not beside the weights; else "".

    Raises:
      UserError: missing, unexpected or misshapen weights, no tokenizer, an unknown activation.
    """
    place = ASSETS / EMBEDDED if path == EMBEDDED else pathlib.Path(path).expanduser()
    config, params, sha256 = convert.load(place, activation or None)
    theirs = files.locate(place).name.startswith("open_clip")
    return Backbone(
        name=path,
        config=config,
        params=params,
        tokenizer=tokenizer.load(tokens or None, place, vocab_size=config.vocab_size),
        preprocess=pixels.declared(place, config.image_size, prefer_open_clip=theirs),
        sha256=sha256,
        tokens=tokens,
    )
