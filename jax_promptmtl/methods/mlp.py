"""Prompts of both towers from one source per layer by linear maps: the "MLP" ablation of MmAP (Figure 4)."""

from collections.abc import Mapping

import flax.linen as nn

from jax_promptmtl.methods.blocks import LinearStack, Tokens
from jax_promptmtl.methods.method import Method, Prompts, check_depth


class ProjectedPrompts(Method):
    """Learn a source prompt per layer, and per layer and tower a linear map to the tower's width.

    Parameters: K (b s + (s + 1) (D_text + D_image)), without biases s in place of s + 1; in the subtrees `source`,
    `text` and `image`.

    Attributes:
      towers: tower -> (layers, width).
      length: prompt tokens per layer, b.
      source_width: width of the source prompts, s.
      depth: layers with prompts of their own, K.
      bias: whether the maps have biases.
      std: initial standard deviation of the source prompts; the maps use torch's initialisation.
    """

    towers: Mapping[str, tuple[int, int]]
    length: int
    source_width: int
    depth: int
    bias: bool = True
    std: float = 0.02

    @nn.compact
    def __call__(self, context: None = None) -> Prompts:
        """Return tower -> layer -> float[b, D]; every layer replaces its prompts."""
        check_depth(self.depth, self.towers)
        source = Tokens(self.depth, self.length, self.source_width, self.std, name="source")()
        maps = {tower: LinearStack(width, self.bias, name=tower) for tower, (_, width) in self.towers.items()}
        return {tower: dict(enumerate(maps[tower](source))) for tower in maps}
