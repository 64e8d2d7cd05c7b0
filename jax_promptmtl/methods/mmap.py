"""MmAP: prompts of both towers from one source prompt per layer, by Kronecker products (paper, eq. 6-12)."""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.methods.method import Method, Prompts
from jax_promptmtl.models.layers.kronecker import kronecker

Array = jax.Array


class KroneckerSet(nn.Module):
    """One MmAP: per layer a source prompt P_s [m, n] and, per tower, a scaling matrix M [b/m, D/n].

    Parameters: K (m n + b/m (D_text + D_image)/n).

    Attributes:
      towers: tower -> (layers, width).
      length: prompt tokens per layer, b.
      rows: rows of the source prompt, m; divides b.
      columns: columns of the source prompt, n; divides every width.
      source_std: initial standard deviation of the source prompts (0.02 in the paper).
      scale_std: that of the scaling matrices. It must be O(1): with 0.02 the prompts fall below LayerNorm's epsilon,
        and constant matrices would keep rows of the prompts equal for ever where b > m.
      order: see `kronecker`.
    """

    towers: Mapping[str, tuple[int, int]]
    length: int
    rows: int
    columns: int
    source_std: float
    scale_std: float
    order: str

    @nn.compact
    def __call__(self) -> dict[str, Array]:
        """Return {tower: float[K, b, D]}."""
        layers = max(depth for depth, _ in self.towers.values())
        normal = nn.initializers.normal
        source = self.param("source", normal(self.source_std), (layers, self.rows, self.columns))  # P_s
        prompts = {}
        for tower, (depth, width) in sorted(self.towers.items()):
            shape = (depth, self.length // self.rows, width // self.columns)
            scale = self.param(tower, normal(self.scale_std), shape)  # M_l, M_v
            prompts[tower] = kronecker(scale, source[:depth], self.order)
        return prompts


class KroneckerPrompts(Method):
    """Several MmAPs side by side: by default a group-shared and a task-specific one (eq. 9-10).

    Attributes:
      sets: names of the parameter subtrees; `sharing` says which tasks read the same slot of each.
      towers, length, rows, columns, source_std, scale_std, order: see `KroneckerSet`.
    """

    towers: Mapping[str, tuple[int, int]]
    sets: tuple[str, ...]
    length: int
    rows: int
    columns: int
    source_std: float = 0.02
    scale_std: float = 1.0
    order: str = "scale_source"

    @nn.compact
    def __call__(self, context: None = None) -> Prompts:
        """Return tower -> layer -> float[len(sets) * b, D]; every layer replaces its prompts, outputs are discarded."""
        self.check()
        options = (self.towers, self.length, self.rows, self.columns, self.source_std, self.scale_std, self.order)
        sets = [KroneckerSet(*options, name=name)() for name in self.sets]
        joined = {tower: jnp.concatenate([prompts[tower] for prompts in sets], axis=1) for tower in self.towers}
        return {tower: dict(enumerate(layers)) for tower, layers in joined.items()}

    def check(self) -> None:
        """Refuse sizes that do not divide."""
        if self.length % self.rows:
            raise UserError(f"The source prompt's rows {self.rows} must divide the prompt length {self.length}.")
        for tower, (_, width) in self.towers.items():
            if width % self.columns:
                common = math.gcd(*(width for _, width in self.towers.values()))
                raise UserError(
                    f"The source prompt's columns {self.columns} must divide the {tower} width {width}; give the key "
                    f"columns of config.method, and of config.grouping.method, {common} or a divisor of it."
                )
