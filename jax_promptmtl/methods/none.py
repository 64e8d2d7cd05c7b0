"""No prompts: zero-shot, and weight tuning through `tune` patterns (full fine-tuning `.*`, BitFit `.*/bias`)."""

from collections.abc import Mapping

import flax.linen as nn
import jax

Prompts = dict[str, dict[int, jax.Array]]


class NoPrompts(nn.Module):
    """Return no prompts and leave features alone."""

    towers: Mapping[str, tuple[int, int]]

    def __call__(self, context: None = None) -> Prompts:
        """Return {}."""
        return {}
