"""Convert upstream's checkpoints of DVIS and MinVIS, which use detectron2's names, without torch."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video.convert_norm import fold
from jax_promptmtl.models.video.dvis import Dvis, DvisConfig
from jax_promptmtl.models.video.mask_decoder import MaskDecoderConfig
from jax_promptmtl.models.video.pixel_decoder import PixelDecoderConfig
from jax_promptmtl.models.video.resnet import ResNetConfig
from jax_promptmtl.models.video.tracker import TrackerConfig
from jax_promptmtl.models.weights import files, wrappers
from jax_promptmtl.models.weights.table import (
    KEEP,
    LINEAR,
    Row,
    State,
    affine,
    arrange,
    expand,
    norm,
    split_fused,
)

CONV = (2, 3, 1, 0)  # torch keeps [out, in, row, column]
TIME = (2, 1, 0)  # torch keeps [out, in, tap]
PIXELS, PREDICTOR = "sem_seg_head.pixel_decoder", "sem_seg_head.predictor"
ANCHOR = f"{PIXELS}.transformer.level_embed"
OLD = re.compile(r"\bstatic_query\b")  # as Mask2Former's first checkpoints call it
UNUSED = ("criterion.empty_weight", "pixel_mean", "pixel_std")


def folded(name: str, path: str) -> list[Row]:
    """Return the rows of a convolution whose batch norm is folded into scale and bias."""
    return [(f"{name}.weight", f"{path}/kernel", CONV), *norm(f"{name}.norm", path)]


def resnet(stages: int = 4) -> list[Row]:
    """Return the rows of the backbone; `{i}` is the number of a block."""
    rows = folded("backbone.stem.conv1", "backbone/stem")
    for stage in range(stages):
        theirs, ours = f"backbone.res{stage + 2}", f"backbone/block_{stage}"
        rows += folded(f"{theirs}.0.shortcut", f"{ours}_0/shortcut")
        for conv in (1, 2, 3):
            rows += folded(f"{theirs}.{{i}}.conv{conv}", f"{ours}_{{i}}/conv_{conv}")
    return rows


def pixel_decoder() -> list[Row]:
    """Return the rows of the pixel decoder."""
    rows: list[Row] = [(f"{PIXELS}.transformer.level_embed", "pixels/level", KEEP)]
    for i in range(3):
        rows += affine(f"{PIXELS}.input_proj.{i}.0", f"pixels/project_{i}")
        rows += norm(f"{PIXELS}.input_proj.{i}.1", f"pixels/project_norm_{i}")
    theirs, ours = f"{PIXELS}.transformer.encoder.layers.{{i}}", "pixels/encoder/blocks_{i}"
    maps = {"sampling_offsets": "offsets", "attention_weights": "weights", "value_proj": "value", "output_proj": "out"}
    for name, path in maps.items():
        rows += affine(f"{theirs}.self_attn.{name}", f"{ours}/attn/{path}")
    rows += norm(f"{theirs}.norm1", f"{ours}/ln_1") + norm(f"{theirs}.norm2", f"{ours}/ln_2")
    rows += affine(f"{theirs}.linear1", f"{ours}/fc") + affine(f"{theirs}.linear2", f"{ours}/proj")
    rows += [(f"{PIXELS}.adapter_1.weight", "pixels/lateral/kernel", LINEAR)]
    rows += [(f"{PIXELS}.layer_1.weight", "pixels/smooth/kernel", CONV)]
    rows += norm(f"{PIXELS}.adapter_1.norm", "pixels/lateral_norm") + norm(
        f"{PIXELS}.layer_1.norm", "pixels/smooth_norm"
    )
    return rows + affine(f"{PIXELS}.mask_features", "pixels/features")


def layers(stem: str, ours: str, attention: Mapping[str, tuple[str, str]]) -> list[Row]:
    """Return the rows of attention and feed-forward layers; attention: our name -> list of layers, map inside one."""
    rows = []
    for name, (listed, inside) in attention.items():
        theirs, path = f"{stem}.{listed}.{{i}}", f"{ours}/blocks_{{i}}/{name}"
        rows += norm(f"{theirs}.norm", f"{path}/norm") + affine(f"{theirs}.{inside}.out_proj", f"{path}/attn/out")
        for part in ("query", "key", "value"):  # fused as in_proj_* in the file; `split_fused` gives them these names
            rows += affine(f"{theirs}.{inside}.{part}", f"{path}/attn/{part}")
    theirs, path = f"{stem}.transformer_ffn_layers.{{i}}", f"{ours}/blocks_{{i}}/feed"
    rows += affine(f"{theirs}.linear1", f"{path}/fc") + affine(f"{theirs}.linear2", f"{path}/proj")
    return rows + norm(f"{theirs}.norm", f"{path}/norm")


def heads(stem: str, ours: str) -> list[Row]:
    """Return the rows of the heads on queries."""
    rows = norm(f"{stem}.decoder_norm", f"{ours}/say/norm") + affine(f"{stem}.class_embed", f"{ours}/say/classify")
    return rows + affine(f"{stem}.mask_embed.layers.{{i}}", f"{ours}/say/embed/layers_{{i}}")


def attention_layers(**names: str) -> dict[str, tuple[str, str]]:
    """Return what `layers` reads, of our name -> the kind of attention."""
    inside = {"cross": "multihead_attn"}
    return {
        name: (f"transformer_{kind}_attention_layers", inside.get(kind, "self_attn")) for name, kind in names.items()
    }


def refiner() -> list[Row]:
    """Return the rows of the temporal refiner."""
    rows = layers("refiner", "refiner", attention_layers(time="time_self", own="obj_self", cross="cross"))
    theirs, ours = "refiner.conv_short_aggregate_layers.{i}", "refiner/blocks_{i}"
    for place, path in ((0, "wide"), (2, "narrow")):
        rows += [(f"{theirs}.{place}.weight", f"{ours}/{path}/kernel", TIME)]
        rows += [(f"{theirs}.{place}.bias", f"{ours}/{path}/bias", KEEP)]
    rows += norm("refiner.conv_norms.{i}", f"{ours}/norm") + heads("refiner", "refiner")
    return rows + affine("refiner.activation_proj", "refiner/weigh")


SEGMENTER: list[Row] = [
    *resnet(),
    *pixel_decoder(),
    (f"{PREDICTOR}.query_feat.weight", "decoder/query", KEEP),
    (f"{PREDICTOR}.query_embed.weight", "decoder/place", KEEP),
    (f"{PREDICTOR}.level_embed.weight", "decoder/level", KEEP),
    *layers(PREDICTOR, "decoder", attention_layers(own="self", cross="cross")),
    *heads(PREDICTOR, "decoder"),
]
TRACKER = [*layers("tracker", "tracker", attention_layers(own="self", cross="cross")), *heads("tracker", "tracker")]
REFINER = refiner()


def to_tree(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the float32 parameters of `Dvis` from a state_dict, with tracker and refiner where it has them.

    Raises:
      UserError: another architecture, or leaves missing (-) or left over (+).
    """
    state = squeeze(fold(split_fused(strip(state))))
    parts = {"tracker.": TRACKER, "refiner.": REFINER}
    table = SEGMENTER + [row for part in parts if any(name.startswith(part) for name in state) for row in parts[part]]
    return arrange(expand(table, state), state, "DVIS")


def strip(state: Mapping[str, np.ndarray]) -> State:
    """Drop prefixes added by trainers, their other state, and buffers that are not weights.

    >>> list(strip({f"model.{ANCHOR}": 1, "model.criterion.empty_weight": 2, "iteration": 3}))
    ['sem_seg_head.pixel_decoder.transformer.level_embed']
    """
    inside = wrappers.under(state, [ANCHOR])
    named = {OLD.sub("query_feat", name): leaf for name, leaf in (state if inside is None else inside).items()}
    return {name: leaf for name, leaf in named.items() if name not in UNUSED}


def squeeze(state: State) -> State:
    """Take the two last axes from the pixel decoder's 1 x 1 convolutions, which are affine maps here."""
    one = {name for name, leaf in state.items() if name.startswith(PIXELS) and leaf.shape[2:] == (1, 1)}
    return {name: leaf[:, :, 0, 0] if name in one else leaf for name, leaf in state.items()}


def shapes(config: DvisConfig) -> dict[str, Any]:
    """Return the tree of shapes of `Dvis`, without computing anything."""
    inputs = (jax.ShapeDtypeStruct((1, 2, 64, 64, 3), jnp.float32), jax.ShapeDtypeStruct((1, 2), bool))
    result: dict[str, Any] = jax.eval_shape(Dvis(config).init, jax.random.key(0), *inputs)["params"]
    return result


def infer_config(params: Mapping[str, Any], heads: int = 8, groups: int = 32, matching: str = "released") -> DvisConfig:
    """Return the sizes that the shapes of the weights imply, and check every shape.

    Args:
      params: the tree of `to_tree`.
      heads: attention heads; not implied by shapes.
      groups: of the GroupNorms, likewise.
      matching: of the tracker; see `TrackerConfig`.
    """
    trunk, pixels, decoder = params["backbone"], params["pixels"], params["decoder"]
    stage = "offline" if "refiner" in params else "online" if "tracker" in params else "minvis"
    depths = tuple(sum(name.startswith(f"block_{i}_") for name in trunk) for i in range(4))
    levels, width = pixels["level"].shape
    block, points = pixels["encoder"]["blocks_0"], 2 * heads * levels
    common: dict[str, Any] = {"heads": heads, "width": width, "mask_width": pixels["features"]["kernel"].shape[1]}
    config = DvisConfig(
        stage,
        ResNetConfig(depths, trunk["stem"]["kernel"].shape[3], dilated=()),
        PixelDecoderConfig(
            **common,
            points=block["attn"]["offsets"]["kernel"].shape[1] // points,
            inner=block["fc"]["kernel"].shape[1],
            layers=len(pixels["encoder"]),
            levels=levels,
            groups=groups,
        ),
        MaskDecoderConfig(**common, **counts(decoder), queries=len(decoder["query"]), levels=levels),
        TrackerConfig(**common, **counts(params["tracker"]), matching=matching)
        if stage != "minvis"
        else TrackerConfig(),
    )
    if difference := tree.describe_difference(shapes(config), params):
        raise UserError(f"The weights do not fit a DVIS: {difference[:300]}; give complete, unmodified weights.")
    return config


def counts(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the layers, the inner width and the classes of a decoder or tracker."""
    return {
        "layers": sum(name.startswith("blocks_") for name in params),
        "inner": params["blocks_0"]["feed"]["fc"]["kernel"].shape[1],
        "classes": len(params["say"]["classify"]["bias"]) - 1,
    }


def load(path: str | Path, matching: str = "released") -> tuple[DvisConfig, dict[str, Any]]:
    """Load a DVIS or MinVIS with a ResNet-50 from a file of torch, or a .safetensors file with the same names."""
    params = to_tree(files.read_state(files.locate(path)))
    return infer_config(params, matching=matching), params
