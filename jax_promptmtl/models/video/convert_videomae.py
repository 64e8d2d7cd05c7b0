"""Weights of VideoMAE from the files that others publish: OpenGVLab's .pth and Hugging Face's; never through torch."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.clip import convert
from jax_promptmtl.models.clip.convert import KEEP, Row, State, affine, norm
from jax_promptmtl.models.video.videomae import VideoClassifier, VideoMaeConfig

TUBE = (2, 3, 4, 1, 0)  # torch keeps [out, channel, frame, row, column]
MAPS = ("attn/query", "attn/key", "attn/value", "attn/out", "mlp/fc", "mlp/proj")
HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}  # width: heads of the published ViT-S, -B, -L, -H, -g


def layout(patch: str, stem: str, block: Mapping[str, str], head: str) -> list[Row]:
    """Return the table of a naming: torch name, our path, transposition."""
    rows: list[Row] = [
        (f"{patch}.weight", "trunk/patch/kernel", TUBE),
        (f"{patch}.bias", "trunk/patch/bias", KEEP),
        *norm("fc_norm", "pool/fc_norm"),
        *affine(head, "pool/head"),
    ]
    path = "trunk/transformer/blocks_{i}"
    for ours in ("ln_1", "ln_2"):
        rows += norm(f"{stem}.{block[ours]}", f"{path}/{ours}")
    return rows + [row for ours in MAPS for row in affine(f"{stem}.{block[ours]}", f"{path}/{ours}")]


OPENGVLAB = layout(
    "patch_embed.proj",
    "blocks.{i}",
    {
        **{"ln_1": "norm1", "ln_2": "norm2", "mlp/fc": "mlp.fc1", "mlp/proj": "mlp.fc2"},
        **{"attn/query": "attn.query", "attn/key": "attn.key", "attn/value": "attn.value", "attn/out": "attn.proj"},
    },
    "head",
)
HF = layout(
    "embeddings.patch_embeddings.projection",
    "encoder.layer.{i}",
    {
        **{"ln_1": "layernorm_before", "ln_2": "layernorm_after"},
        **{"mlp/fc": "intermediate.dense", "mlp/proj": "output.dense", "attn/out": "attention.output.dense"},
        **{f"attn/{name}": f"attention.attention.{name}" for name in ("query", "key", "value")},
    },
    "classifier",
)
LAYOUTS = {"patch_embed.proj.weight": OPENGVLAB, "embeddings.patch_embeddings.projection.weight": HF}
WRAPPERS = ("module.", "model.", "state_dict.")  # of trainers; what lies beside them, as an optimiser, is not weights
PREFIX = re.compile(r"^((backbone|_orig_mod|videomae)\.)*")
UNUSED = re.compile(r"norm\.(weight|bias)|(decoder|encoder_to_decoder)\..*|.*mask_token")  # of pretraining


def to_tree(state: Mapping[str, np.ndarray]) -> dict:
    """Return the float32 parameters of `VideoClassifier` from a state_dict; without a head in it, those of the trunk.

    Raises:
      UserError: another architecture, or leaves missing (-) or left over (+).
    """
    state = name_biases(split_qkv(strip(state)))
    table = next((rows for name, rows in LAYOUTS.items() if name in state), None)
    if table is None:
        raise UserError(f"These weights (first leaf {next(iter(state), None)!r}) are not a VideoMAE; give one.")
    rows = convert.expand(table, state)
    if not any(name.startswith(("head.", "classifier.")) for name in state):  # a trunk alone, with its last norm or not
        rows = [row for row in rows if not row[1].startswith("pool/")]
        state = {name: leaf for name, leaf in state.items() if not name.startswith("fc_norm.")}
    return convert.arrange(rows, state, "VideoMAE")


def strip(state: Mapping[str, np.ndarray]) -> State:
    """Drop the prefixes of trainers, and all that only pretraining has.

    >>> strip({"model.backbone.head.bias": 1, "optimizer.step": 2})
    {'head.bias': 1}
    """
    for wrapper in WRAPPERS:
        if any(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): leaf for name, leaf in state.items() if name.startswith(wrapper)}
    stripped = {PREFIX.sub("", name): leaf for name, leaf in state.items()}
    if "encoder.patch_embed.proj.weight" in stripped:
        stripped = {name.removeprefix("encoder."): leaf for name, leaf in stripped.items()}
    return {name: leaf for name, leaf in stripped.items() if not UNUSED.fullmatch(name)}


def split_qkv(state: State) -> State:
    """Cut the fused `qkv.weight` [3 D, D] into query, key and value."""
    out: State = {}
    for name, leaf in state.items():
        stem, found, _ = name.partition(".qkv.weight")
        if found and leaf.shape[0] % 3 == 0:
            parts = zip(("query", "key", "value"), np.split(leaf, 3), strict=True)
            out |= {f"{stem}.{part}.weight": array for part, array in parts}
        else:
            out[name] = leaf
    return out


def name_biases(state: State) -> State:
    """Call `q_bias` and `v_bias` what they are, and give every key the bias of zeros that the model leaves out."""
    renamed = {
        re.sub(r"\.([qv])_bias$", lambda m: {"q": ".query", "v": ".value"}[m[1]] + ".bias", name): leaf
        for name, leaf in state.items()
    }
    keys = {name: leaf for name, leaf in renamed.items() if name.endswith(".key.weight")}
    zeros = {name.replace(".weight", ".bias"): np.zeros(len(leaf), np.float32) for name, leaf in keys.items()}
    return renamed | zeros


def infer_config(params: Mapping[str, Any], heads: int = 0, frames: int = 16, image_size: int = 224) -> VideoMaeConfig:
    """Return the sizes that the shapes of the weights imply, and check every shape against a model of those sizes.

    Args:
      params: the tree of `to_tree`.
      heads: 0 is that of the published model of this width, else one per 64 channels.
      frames: of the clips that the positions were trained with; shapes do not tell.
      image_size: in pixels, likewise.
    """
    trunk = params["trunk"]
    tubelet, patch, _, channels, width = trunk["patch"]["kernel"].shape
    heads = heads or HEADS.get(width) or max(1, width // 64)
    if width % heads or frames % tubelet or image_size % patch:
        raise UserError(
            f"{heads} heads, {frames} frames and {image_size} pixels do not fit a VideoMAE of width {width} with "
            f"tubelets of {tubelet} x {patch} x {patch}; give multiples."
        )
    config = VideoMaeConfig(
        frames=frames,
        image_size=image_size,
        tubelet=tubelet,
        patch=patch,
        channels=channels,
        width=width,
        layers=len(trunk["transformer"]),
        heads=heads,
        inner=trunk["transformer"]["blocks_0"]["mlp"]["fc"]["kernel"].shape[1],
        classes=len(params["pool"]["head"]["bias"]) if "pool" in params else 0,
    )
    expected = {name: leaf for name, leaf in shapes(config).items() if name in params}
    if difference := tree.describe_difference(expected, params):
        raise UserError(f"The weights do not fit a VideoMAE: {difference[:300]}; give complete, unmodified weights.")
    return config


def shapes(config: VideoMaeConfig) -> dict:
    """Return the tree of shapes of `VideoClassifier`, without computing anything."""
    side = config.image_size
    video = jax.ShapeDtypeStruct((1, config.frames, side, side, config.channels), jnp.float32)
    return jax.eval_shape(VideoClassifier(config).init, jax.random.key(0), video)["params"]


def load(path: str | Path, heads: int = 0, frames: int = 0, image_size: int = 0) -> tuple[VideoMaeConfig, dict, str]:
    """Read a VideoMAE from a folder or file of Hugging Face or OpenGVLab.

    Args:
      path: a folder, or a .safetensors, .pth, .pt or .bin file; a config.json is looked for beside it.
      heads: 0 asks config.json, then the published sizes.
      frames: of the clips of the training; 0 asks config.json, then is 16.
      image_size: in pixels; 0 asks config.json, then is 224.

    Returns:
      The sizes, the float32 parameters of `VideoClassifier`, and the SHA-256 of the weights file.
    """
    file = convert.locate(path)
    told = convert.optional_json(file.parent / "config.json")
    params = to_tree(convert.read_state(file))
    config = infer_config(
        params,
        heads or told.get("num_attention_heads", 0),
        frames or told.get("num_frames", 16),
        image_size or told.get("image_size", 224),
    )
    biases = [block["attn"]["query"]["bias"] for block in params["trunk"]["transformer"].values()]
    if not any(bias.any() for bias in biases):  # some releases of transformers zeroed them on their way through
        raise UserError(
            f"Every query bias in {str(file)!r} is zero, so they were lost; fetch the published file again."
        )
    with file.open("rb") as stream:
        return config, params, hashlib.file_digest(stream, "sha256").hexdigest()
