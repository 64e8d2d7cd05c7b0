"""Convert upstream's checkpoints of ActionFormer (`epoch_035.pth.tar`), without torch.

Upstream evaluates the moving average of the weights, `state_dict_ema`; it is used here where a file has one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video.actionformer import ActionFormer, ActionFormerConfig
from jax_promptmtl.models.weights import files, wrappers
from jax_promptmtl.models.weights.table import KEEP, Row, affine, arrange, expand, norm

ANCHOR = "backbone.embd.0.conv.weight"
TIME = (2, 1, 0)  # torch keeps [out, in, tap]
BUFFERS = ("point_generator.", "backbone.pos_embd")


def block(stem: str, path: str) -> list[Row]:
    """Return the rows of a block."""
    rows: list[Row] = [*norm(f"{stem}.ln1", f"{path}/ln_1"), *norm(f"{stem}.ln2", f"{path}/ln_2")]
    for part in ("query", "key", "value"):
        rows += [(f"{stem}.attn.{part}_conv.conv.weight", f"{path}/attn/{part}_conv/kernel", TIME)]
        rows += norm(f"{stem}.attn.{part}_norm", f"{path}/attn/{part}_norm")
        rows += affine(f"{stem}.attn.{part}", f"{path}/attn/{part}")
    rows += affine(f"{stem}.attn.proj", f"{path}/attn/out")
    rows += affine(f"{stem}.mlp.0", f"{path}/fc") + affine(f"{stem}.mlp.3", f"{path}/proj")
    scales = {"drop_path_attn": "scale_1", "drop_path_mlp": "scale_2"}
    return rows + [(f"{stem}.{theirs}.scale", f"{path}/{ours}", KEEP) for theirs, ours in scales.items()]


def head(stem: str, out: str, path: str) -> list[Row]:
    """Return the rows of a head."""
    rows: list[Row] = [(f"{stem}.head.{{i}}.conv.weight", f"{path}/convs_{{i}}/kernel", TIME)]
    rows += norm(f"{stem}.norm.{{i}}", f"{path}/norms_{{i}}")
    rows += [(f"{stem}.{out}.conv.weight", f"{path}/out/kernel", TIME)]
    return [*rows, (f"{stem}.{out}.conv.bias", f"{path}/out/bias", KEEP)]


TABLE: list[Row] = [
    ("backbone.embd.{i}.conv.weight", "embed_{i}/kernel", TIME),
    *norm("backbone.embd_norm.{i}", "embed_norm_{i}"),
    *block("backbone.stem.{i}", "stem_{i}"),
    *block("backbone.branch.{i}", "branch_{i}"),
    *norm("neck.fpn_norms.{i}", "level_norm_{i}"),
    *head("cls_head", "cls_head", "classify"),
    *head("reg_head", "offset_head", "regress"),
    ("reg_head.scale.{i}.scale", "scale_{i}", KEEP),
]


def to_tree(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the float32 parameters of `ActionFormer` from a state_dict, or from what upstream saves around it.

    Raises:
      UserError: another architecture (windows over all, relative positions, a pyramid with convolutions), or leaves
        missing (-) or left over (+).
    """
    inside = wrappers.under(state, [ANCHOR], average=True)
    if inside is None:
        raise UserError(f"These weights (first leaf {next(iter(state), None)!r}) are not an ActionFormer; give one.")
    plain = {name: flat(name, leaf) for name, leaf in inside.items() if not name.startswith(BUFFERS)}
    return blocks(arrange(expand(TABLE, plain), plain, "ActionFormer"))


def flat(name: str, leaf: np.ndarray) -> np.ndarray:
    """Drop the axes of length 1 that upstream's norms, factors and 1 x 1 convolutions have.

    >>> flat("ln1.weight", np.zeros((1, 3, 1))).shape, flat("key.weight", np.zeros((4, 3, 1))).shape
    ((3,), (4, 3))
    """
    if leaf.ndim != 3 or leaf.shape[2] != 1 or name.endswith(".conv.weight"):
        return leaf
    return leaf[0, :, 0] if leaf.shape[0] == 1 else leaf[:, :, 0]


def blocks(params: Mapping[str, Any]) -> dict[str, Any]:
    """Number the blocks of stem and branch together, and put the levels' factors into one vector.

    >>> sorted(blocks({"stem_0": 1, "branch_0": 2, "scale_0": np.ones(()), "scale_1": np.ones(())}))
    ['blocks_0', 'blocks_1', 'scale']
    """
    first: dict[str, int] = {"stem": 0, "branch": sum(name.startswith("stem_") for name in params)}
    out: dict[str, Any] = {}
    for name, leaf in params.items():
        part, _, number = name.rpartition("_")
        if part != "scale":
            out[f"blocks_{first[part] + int(number)}" if part in first else name] = leaf
    return out | {"scale": np.stack([params[f"scale_{i}"] for i in range(len(params)) if f"scale_{i}" in params])}


def shapes(config: ActionFormerConfig) -> dict[str, Any]:
    """Return the tree of shapes of `ActionFormer`, without computing anything."""
    steps = 2**config.branch
    inputs = jax.ShapeDtypeStruct((1, steps, config.inputs), jnp.float32), jax.ShapeDtypeStruct((1, steps), bool)
    result: dict[str, Any] = jax.eval_shape(ActionFormer(config).init, jax.random.key(0), *inputs)["params"]
    return result


def infer_config(params: Mapping[str, Any], heads: int = 4, window: int = 19, reach: float = 4.0) -> ActionFormerConfig:
    """Return the sizes that the shapes of the weights imply, and check every shape.

    Args:
      params: the tree of `to_tree`.
      heads: attention heads; not implied by shapes.
      window: width of the attention window, likewise.
      reach: largest distance to a boundary for the first level, likewise.
    """
    _, inputs, width = params["embed_0"]["kernel"].shape
    branch = len(params["scale"]) - 1
    config = ActionFormerConfig(
        inputs=inputs,
        width=width,
        heads=heads,
        window=window,
        embeddings=sum(name.startswith("embed_norm_") for name in params),
        stem=sum(name.startswith("blocks_") for name in params) - branch,
        branch=branch,
        head_layers=1 + sum(name.startswith("convs_") for name in params["classify"]),
        classes=len(params["classify"]["out"]["bias"]),
        reach=reach,
    )
    if difference := tree.describe_difference(shapes(config), params):
        raise UserError(
            f"The weights do not fit an ActionFormer: {difference[:300]}; give complete, unmodified weights."
        )
    return config


def load(
    path: str | Path, heads: int = 4, window: int = 19, reach: float = 4.0
) -> tuple[ActionFormerConfig, dict[str, Any]]:
    """Load an ActionFormer from a file of torch, or a .safetensors file with the same names; see `infer_config`."""
    params = to_tree(files.read_state(files.locate(path)))
    return infer_config(params, heads, window, reach), params
