"""Free prompt tokens: CoOp (text, layer 0), VPT (image, shallow or deep), and both towers jointly (IVLP)."""

from collections.abc import Mapping

import flax.linen as nn

from jax_promptmtl.core.errors import pick
from jax_promptmtl.methods.blocks import Tokens
from jax_promptmtl.methods.method import Method, Prompts, check_depth


class TokenPrompts(Method):
    """Learn the tokens of the given layers directly.

    Attributes:
      towers: tower -> (layers, width).
      length: tower -> prompt tokens per layer.
      depth: tower -> number of layers, from the first on, with tokens of their own.
      std: initial standard deviation.
    """

    towers: Mapping[str, tuple[int, int]]
    length: Mapping[str, int]
    depth: Mapping[str, int]
    std: float = 0.02

    @nn.compact
    def __call__(self, context: None = None) -> Prompts:
        """Return tower -> layer -> float[length, D]."""
        return {tower: dict(enumerate(Tokens(*self.shape(tower), self.std, name=tower)())) for tower in self.length}

    def shape(self, tower: str) -> tuple[int, int, int]:
        """Return (layers, tokens, width) of one tower's tokens."""
        pick(tower, self.towers, "tower")
        check_depth(self.depth[tower], {tower: self.towers[tower]})
        return self.depth[tower], self.length[tower], self.towers[tower][1]
