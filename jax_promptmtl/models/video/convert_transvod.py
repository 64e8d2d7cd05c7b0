"""Convert upstreams' checkpoints (.pth) of TransVOD and single-scale Deformable DETR, without torch."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video.convert_norm import fold
from jax_promptmtl.models.video.transvod import TransVod, TransVodConfig
from jax_promptmtl.models.weights import files, wrappers
from jax_promptmtl.models.weights.table import State, split_fused

RESNET = "backbone.0.body."
ANCHOR = "transformer.level_embed"
UNUSED = re.compile(r".*num_batches_tracked|transformer\.(temporal_encoder_layer|decoder\.(bbox|class)_embed)\..*")

DEFORMABLE = {
    "sampling_offsets": "offsets",
    "attention_weights": "weights",
    "value_proj": "value",
    "output_proj": "out",
}
DENSE = {"query": "query", "key": "key", "value": "value", "out_proj": "out"}
MLP = {"linear1": "fc", "linear2": "proj"}
ENCODER = MLP | {"norm1": "ln_1", "norm2": "ln_2"} | {f"self_attn.{a}": f"attn/{b}" for a, b in DEFORMABLE.items()}
QUERIES = MLP | {"norm2": "ln_1", "norm1": "ln_2", "norm3": "ln_3"}
QUERIES |= {f"{kind}_attn.{a}": f"{kind}_attn/{b}" for kind in ("self", "cross") for a, b in DENSE.items()}
DECODER = QUERIES | {f"cross_attn.{a}": f"cross_attn/{b}" for a, b in DEFORMABLE.items()}
HEAD = {f"layers.{j}": f"fc_{j}" for j in range(3)}
WHOLE = {"": ""}

PARTS: list[tuple[str, str, Mapping[str, str]]] = [  # pattern of a torch name, our path, names of what is in it
    (r"transformer\.encoder\.layers\.(\d+)", "detector/encoder/blocks_{}", ENCODER),
    (r"transformer\.decoder\.layers\.(\d+)", "detector/decoder_{}", DECODER),
    (r"bbox_embed\.(\d+)", "detector/place_{}", HEAD),
    (r"class_embed\.(\d+)", "detector/classify_{}", WHOLE),
    (r"input_proj\.0\.0", "detector/project", WHOLE),
    (r"input_proj\.0\.1", "detector/norm", WHOLE),
    (r"transformer\.reference_points", "detector/start", WHOLE),
    (r"transformer\.temporal_query_layer(\d+)", "temporal/queries_{}", QUERIES),
    (r"transformer\.temporal_decoder\.layers\.0", "temporal/decoder", DECODER),
    (r"temp_class_embed", "temporal/classify", WHOLE),
    (r"temp_bbox_embed", "temporal/place", HEAD),
]
ALONE = {"query_embed.weight": "detector/query", "transformer.level_embed": "detector/level"}


def rename(name: str) -> str | None:
    """Return our path for upstream's leaf, with query, key and value split; `None` if it has none.

    >>> rename("transformer.decoder.layers.3.norm2.weight")
    'detector/decoder_3/ln_1/scale'
    >>> rename("transformer.temporal_query_layer1.linear1.bias")
    'temporal/queries_0/fc/bias'
    """
    if name in ALONE:
        return ALONE[name]
    stem, _, kind = name.rpartition(".")
    for pattern, path, inside in PARTS:
        match = re.fullmatch(rf"{pattern}(?:\.(.+))?", stem)
        if match and kind in ("weight", "bias"):
            *number, rest = match.groups()
            if (rest or "") in inside:
                first = 1 if "queries" in path else 0  # upstream counts these from 1
                full = path.format(*(int(n) - first for n in number)) + f"/{inside[rest or '']}".rstrip("/")
                is_norm = full.rpartition("/")[2].startswith(("ln_", "norm"))
                return f"{full}/{'bias' if kind == 'bias' else 'scale' if is_norm else 'kernel'}"
    return None


def rename_resnet(name: str) -> str | None:
    """Return our path for torchvision's leaf.

    >>> rename_resnet("layer2.0.downsample.1.weight"), rename_resnet("bn1.bias")
    ('block_1_0/shortcut/scale', 'stem/bias')
    """
    match = re.fullmatch(r"(?:layer(\d)\.(\d+)\.)?(conv|bn|downsample\.)(\d)\.(weight|bias)", name)
    if not match:
        return None
    stage, block, part, number, kind = match.groups()
    is_norm = part == "bn" or (part == "downsample." and number == "1")
    place = "shortcut" if part == "downsample." else f"conv_{number}"
    path = f"block_{int(stage) - 1}_{block}/{place}" if stage else "stem"
    return f"{path}/{'bias' if kind == 'bias' else 'scale' if is_norm else 'kernel'}"


def resnet_tree(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Convert torchvision's state_dict to parameters of `ResNet`, folding running statistics into the norms."""
    leaves = {}
    for name, leaf in fold({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}).items():
        path = rename_resnet(name)
        if path is None:
            raise UserError(
                f"The leaf {name!r} is not part of a ResNet with bottleneck blocks; give the weights of one."
            )
        leaves[path] = arranged(leaf)
    return tree.unflatten(leaves)


def arranged(leaf: np.ndarray) -> np.ndarray:
    """Return a float32 leaf with the axes as ours: torch keeps [out, in] and [out, in, row, column]."""
    order = {2: (1, 0), 4: (2, 3, 1, 0)}.get(leaf.ndim)
    return np.ascontiguousarray(leaf if order is None else leaf.transpose(order), dtype=np.float32)


def strip(state: Mapping[str, np.ndarray]) -> State:
    """Drop prefixes added by trainers, and their other state.

    >>> strip({f"model.module.{ANCHOR}": 1, "model.module.query_embed.weight": 2, "optimizer.step": 3})
    {'transformer.level_embed': 1, 'query_embed.weight': 2}
    """
    inside = wrappers.under(state, [ANCHOR])
    return dict(state) if inside is None else inside


def to_tree(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the float32 parameters of `TransVod`; without `temporal` from those of a Deformable DETR.

    Raises:
      UserError: a leaf has no place in it.
    """
    state = {name: leaf for name, leaf in strip(state).items() if not UNUSED.fullmatch(name)}
    body = {name.removeprefix(RESNET): leaf for name, leaf in state.items() if name.startswith(RESNET)}
    leaves = {f"detector/resnet/{path}": leaf for path, leaf in tree.flatten(resnet_tree(body)).items()}
    for name, leaf in split_fused({k: v for k, v in state.items() if not k.startswith(RESNET)}).items():
        path = rename(name)
        if path is None:
            raise UserError(
                f"The leaf {name!r} is not part of a TransVOD or a Deformable DETR on one map; give the weights of one."
            )
        leaf = leaf.reshape(leaf.shape[:2]) if leaf.ndim == 4 else leaf  # a 1 x 1 convolution
        leaves[path] = np.asarray(leaf, np.float32) if name in ALONE else arranged(leaf)
    return tree.unflatten(leaves)


def shapes(config: TransVodConfig) -> dict[str, Any]:
    """Return the tree of shapes of `TransVod`, without computing anything."""
    video = jax.ShapeDtypeStruct((1, max(2, config.keys), 64, 64, 3), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, 64, 64), bool)
    result: dict[str, Any] = jax.eval_shape(TransVod(config).init, jax.random.key(0), video, mask)["params"]
    return result


def infer_config(params: Mapping[str, Any], config: TransVodConfig) -> TransVodConfig:
    """Return the sizes that the shapes of the weights imply, and check every shape.

    Args:
      params: of `to_tree`.
      config: what shapes do not imply: heads, groups, strides, dilation, refinement, selected queries, key frames.
    """
    try:
        found, given = params["detector"], config.detector
        blocks = [tuple(map(int, name.split("_")[1:])) for name in found["resnet"] if name.startswith("block")]
        depths = tuple(1 + max(j for i, j in blocks if i == stage) for stage in range(1 + max(blocks)[0]))
        attention = found["encoder"]["blocks_0"]["attn"]
        detector = replace(
            given,
            resnet=replace(given.resnet, depths=depths, width=found["resnet"]["stem"]["kernel"].shape[-1]),
            width=found["query"].shape[1] // 2,
            points=attention["weights"]["bias"].shape[0] // given.heads,
            encoders=len(found["encoder"]),
            decoders=sum(name.startswith("decoder") for name in found),
            inner=found["encoder"]["blocks_0"]["fc"]["bias"].shape[0],
            queries=found["query"].shape[0],
            classes=found["classify_0"]["bias"].shape[0],
        )
    except (KeyError, ValueError) as error:
        raise UserError(f"The weights lack {error} of a TransVOD; give complete, unmodified weights.") from error
    whole = replace(config, detector=detector, selected=config.selected if "temporal" in params else ())
    if difference := tree.describe_difference(shapes(whole), params):
        raise UserError(f"The weights do not fit a TransVOD: {difference[:300]}; give complete, unmodified weights.")
    return whole


def load(path: str | Path, config: TransVodConfig | None = None) -> tuple[TransVodConfig, dict[str, Any]]:
    """Load a TransVOD or a Deformable DETR from a file of torch.

    Args:
      path: of the file, or its folder.
      config: see `infer_config`; upstream's if None. Box refinement is inferred from the weights.
    """
    config = TransVodConfig() if config is None else config
    state = strip(files.read_state(files.locate(path)))
    refine = any(name.startswith("transformer.decoder.bbox_embed.") for name in state)
    params = to_tree(state)
    return infer_config(params, replace(config, detector=replace(config.detector, refine=refine))), params
