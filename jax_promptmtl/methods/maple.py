"""MaPLe: text prompts, and image prompts computed from them by one linear map per layer (arXiv 2210.03117).

After muzairkhattak/multimodal-prompt-learning `trainers/maple.py`, in float32 throughout.
"""

from collections.abc import Mapping

import flax.linen as nn

from jax_promptmtl.methods.blocks import LinearStack, Tokens
from jax_promptmtl.methods.method import Method, Prompts, check_depth


class CoupledPrompts(Method):
    """Learn text tokens for the first J layers and J maps to image tokens; from layer J on both are passed through.

    Parameters: J (b D_text + (D_text + 1) D_image), in the subtrees `text` and `linear`.

    Attributes:
      towers: tower -> (layers, width).
      length: prompt tokens per layer, b.
      depth: layers with tokens of their own, J, the first included.
      std: initial standard deviation of the text tokens.
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
