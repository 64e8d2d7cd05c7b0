"""MaPLe: text prompts, and image prompts that a linear map per layer makes of them (arXiv 2210.03117).

After muzairkhattak/multimodal-prompt-learning `trainers/maple.py`, in float32 throughout.
"""

from collections.abc import Mapping

import flax.linen as nn

from jax_promptmtl.methods.blocks import LinearStack, Tokens
from jax_promptmtl.methods.method import Method, Prompts, check_depth


class CoupledPrompts(Method):
    """Learn the text tokens of the first J layers and J maps to image tokens; after layer J both flow on.

    Parameters: J (b D_text + (D_text + 1) D_image), in the subtrees `text` and `linear`.

    Attributes:
      towers: tower -> (layers, width).
      length: prompt tokens per layer, b.
      depth: layers with tokens of their own, J, the first included.
      std: standard deviation of the text tokens at the start.
    """

    towers: Mapping[str, tuple[int, int]]
    length: int
    depth: int
    std: float = 0.02

    @nn.compact
    def __call__(self, context: None = None) -> Prompts:
        """Return tower -> layer -> float[b, D]."""
        check_depth(self.depth, self.towers)
        text = Tokens(self.depth, self.length, self.towers["text"][1], self.std, name="text")()
        image = LinearStack(self.towers["image"][1], name="linear")(text)
        return {"text": dict(enumerate(text)), "image": dict(enumerate(image))}
