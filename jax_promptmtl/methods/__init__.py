"""Prompt methods: small Linen modules that return prompts, `method() -> {tower: {layer: tokens}}`.

Every method is constructed as `METHODS[name](towers=..., **options)`, where `towers` is {tower: (layers, width)}. Its
parameters are a dict of subtrees; `sharing` gives every subtree its slots.
"""

from typing import Any

from jax_promptmtl.methods.mmap import KroneckerPrompts
from jax_promptmtl.methods.none import NoPrompts
from jax_promptmtl.methods.tokens import TokenPrompts

METHODS: dict[str, Any] = {
    "none": NoPrompts,  # zero-shot; full fine-tuning and BitFit with `tune`
    "mmap": KroneckerPrompts,
    "tokens": TokenPrompts,  # CoOp, VPT, and both jointly
}
