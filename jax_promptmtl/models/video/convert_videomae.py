"""Convert published weights of VideoMAE, OpenGVLab's .pth and Hugging Face's, without torch."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video.roi_head import RoiDetector
from jax_promptmtl.models.video.videomae import VideoClassifier, VideoMaeConfig
from jax_promptmtl.models.weights import files, wrappers
from jax_promptmtl.models.weights.table import KEEP, Row, State, affine, arrange, expand, norm

TUBE = (2, 3, 4, 1, 0)  # torch keeps [out, channel, frame, row, column]
MAPS = ("attn/query", "attn/key", "attn/value", "attn/out", "mlp/fc", "mlp/proj")
HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}  # width: heads of the published ViT-S, -B, -L, -H, -g


def layout(patch: str, stem: str, block: Mapping[str, str], head: str) -> list[Row]:
    """Return the table of a naming scheme: torch name, our path, transposition."""
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
TRUNK = "backbone|videomae"  # prefixes that the trunk may have and the head not
UNUSED = re.compile(r"(norm|layernorm)\.(weight|bias)|(decoder|encoder_to_decoder)\..*|.*mask_token")  # of pretraining


def to_tree(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the float32 parameters of `VideoClassifier` from a state_dict; without a head in it, those of the trunk.

    A model fine-tuned on AVA, recognised by its `norm` over tokens, gives parameters of `RoiDetector` instead.

    Raises:
      UserError: another architecture, or leaves missing (-) or left over (+).
    """
    state = name_biases(split_qkv(strip(state)))
    table = next((rows for name, rows in LAYOUTS.items() if name in state), None)
    if table is None:
        raise UserError(f"These weights (first leaf {next(iter(state), None)!r}) are not a VideoMAE; give one.")
    rows = expand(table, state)
    headed = any(name.startswith(("head.", "classifier.")) for name in state)
    if headed and {"norm.weight", "norm.bias"} <= state.keys() and "fc_norm.weight" not in state:
        rows = [row for row in rows if not row[1].startswith("pool/")]
        return arrange(rows + norm("norm", "roi/norm") + affine("head", "roi/head"), state, "VideoMAE with AVA's head")
    if not headed:  # a trunk alone, with or without its last norm
        rows = [row for row in rows if not row[1].startswith("pool/")]
        state = {name: leaf for name, leaf in state.items() if not name.startswith("fc_norm.")}
    return arrange(rows, {name: leaf for name, leaf in state.items() if not UNUSED.fullmatch(name)}, "VideoMAE")


def strip(state: Mapping[str, np.ndarray]) -> State:
    """Drop prefixes added by trainers, their other state, and a pretraining decoder.

    >>> list(strip({"model.backbone.patch_embed.proj.weight": 1, "model.head.bias": 2, "optimizer.step": 3}))
    ['patch_embed.proj.weight', 'head.bias']
    """
    inside = wrappers.under(state, LAYOUTS, trunk=TRUNK)
    found = state if inside is None else inside
    return {re.sub(rf"^(({TRUNK})\.)+", "", name): leaf for name, leaf in found.items()}


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
    """Rename `q_bias` and `v_bias`, and add the zero key bias that the original omits."""
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
      frames: of the training videos, for the positions; not implied by shapes.
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
        classes=next((len(params[part]["head"]["bias"]) for part in ("pool", "roi") if part in params), 0),
    )
    expected = {name: leaf for name, leaf in shapes(config, boxes="roi" in params).items() if name in params}
    if difference := tree.describe_difference(expected, params):
        raise UserError(f"The weights do not fit a VideoMAE: {difference[:300]}; give complete, unmodified weights.")
    return config


def shapes(config: VideoMaeConfig, *, boxes: bool = False) -> dict[str, Any]:
    """Return the tree of shapes of `VideoClassifier`, or of `RoiDetector`, without computing anything."""
    side = config.image_size
    video = jax.ShapeDtypeStruct((1, config.frames, side, side, config.channels), jnp.float32)
    if boxes:
        box = jax.ShapeDtypeStruct((1, 1, 4), jnp.float32)
        result: dict[str, Any] = jax.eval_shape(RoiDetector(config).init, jax.random.key(0), video, box)["params"]
        return result
    result = jax.eval_shape(VideoClassifier(config).init, jax.random.key(0), video)["params"]
    return result


def load(
    path: str | Path, heads: int = 0, frames: int = 0, image_size: int = 0
) -> tuple[VideoMaeConfig, dict[str, Any], str]:
    """Read a VideoMAE from a folder or file of Hugging Face or OpenGVLab.

    Args:
      path: a folder, or a .safetensors, .pth, .pt or .bin file; a config.json is looked for beside it.
      heads: 0 reads config.json, else assumes the published sizes.
      frames: of the training videos; 0 reads config.json, else 16.
      image_size: in pixels; 0 reads config.json, else 224.

    Returns:
      The sizes, the float32 parameters (see `to_tree`), and the SHA-256 of the weights file.
    """
    file = files.locate(path)
    told = files.optional_json(file.parent / "config.json")
    params = to_tree(files.read_state(file))
    config = infer_config(
        params,
        heads or told.get("num_attention_heads", 0),
        frames or told.get("num_frames", 16),
        image_size or told.get("image_size", 224),
    )
    biases = [block["attn"]["query"]["bias"] for block in params["trunk"]["transformer"].values()]
    if not any(bias.any() for bias in biases):  # some releases of transformers wrote zeros here
        raise UserError(
            f"Every query bias in {str(file)!r} is zero, so they were lost; fetch the published file again."
        )
    return config, params, files.digest(file)
