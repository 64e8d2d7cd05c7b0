"""Convert upstream's checkpoints of ASFormer (`epoch-120.model`), without torch."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video.asformer import AsFormer, AsFormerConfig
from jax_promptmtl.models.weights import files, wrappers

PLACES = {  # of a stage, and of a module; torch name: ours
    "conv_1x1": "embed",
    "conv_out": "head",
    "feed_forward.layer.0": "conv",
    **{f"att_layer.{name}_conv": name for name in ("query", "key", "value")},
    "att_layer.conv_out": "out",
}
STAGE = re.compile(r"(encoder|decoders\.\d+)\.(?:layers\.(\d+)\.)?(.+)\.(weight|bias)")


def rename(name: str) -> str | None:
    """Return our path for upstream's leaf, None if it has none.

    >>> rename("decoders.2.layers.7.conv_1x1.weight")
    'decoders_2/blocks_7/mix/kernel'
    >>> rename("encoder.conv_out.bias")
    'encoder/head/bias'
    """
    match = STAGE.fullmatch(name)
    if not match:
        return None
    stage, layer, place, kind = match.groups()
    ours = "mix" if layer and place == "conv_1x1" else PLACES.get(place)
    if ours is None:
        return None
    block = f"blocks_{layer}/" if layer else ""
    return f"{stage.replace('.', '_')}/{block}{ours}/{'kernel' if kind == 'weight' else kind}"


def to_tree(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the float32 parameters of `AsFormer`; torch keeps convolutions as [out, in, tap]."""
    leaves = {}
    inside = wrappers.under(state, ["encoder.conv_1x1.weight"])
    for name, leaf in (state if inside is None else inside).items():
        path = rename(name)
        if path is None:
            raise UserError(f"The leaf {name!r} is not part of an ASFormer; give the state_dict of one.")
        if leaf.ndim == 3:
            leaf = leaf.transpose(2, 1, 0)
            leaf = leaf if path.endswith("/conv/kernel") else leaf[0]
        leaves[path] = np.ascontiguousarray(leaf, dtype=np.float32)
    return tree.unflatten(leaves)


def shapes(config: AsFormerConfig) -> dict[str, Any]:
    """Return the tree of shapes of `AsFormer`, without computing anything."""
    inputs = (jax.ShapeDtypeStruct((1, 4, config.inputs), jnp.float32), jax.ShapeDtypeStruct((1, 4), bool))
    result: dict[str, Any] = jax.eval_shape(AsFormer(config).init, jax.random.key(0), *inputs)["params"]
    return result


def infer_config(params: Mapping[str, Any], window_mask: str = "released") -> AsFormerConfig:
    """Return the sizes that the shapes of the weights imply, and check every shape; the window mask leaves no trace."""
    encoder = params.get("encoder", {})
    if "embed" not in encoder or "head" not in encoder:
        raise UserError("The weights have no encoder with conv_1x1 and conv_out; give those of a whole ASFormer.")
    inputs, width = encoder["embed"]["kernel"].shape
    config = AsFormerConfig(
        inputs=inputs,
        width=width,
        layers=sum(name.startswith("blocks_") for name in encoder),
        decoders=sum(name.startswith("decoders_") for name in params),
        classes=len(encoder["head"]["bias"]),
        window_mask=window_mask,
    )
    if difference := tree.describe_difference(shapes(config), params):
        raise UserError(f"The weights do not fit an ASFormer: {difference[:300]}; give complete, unmodified weights.")
    return config


def load(path: str | Path, window_mask: str = "released") -> tuple[AsFormerConfig, dict[str, Any]]:
    """Load an ASFormer from a file of torch, or a .safetensors file with the same names."""
    params = to_tree(files.read_state(files.locate(path)))
    return infer_config(params, window_mask), params
