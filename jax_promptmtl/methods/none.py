"""No prompts: zero-shot, and weight tuning through `tune` patterns (full fine-tuning `.*`, BitFit `.*/bias`)."""

from collections.abc import Mapping

from jax_promptmtl.methods.method import Method, Prompts


class NoPrompts(Method):
    """Return no prompts and leave features alone."""

    towers: Mapping[str, tuple[int, int]]

    def __call__(self, context: None = None) -> Prompts:
        """Return {}."""
        return {}
