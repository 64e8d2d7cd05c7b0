"""Prompt methods: Linen modules that return prompts, `method(context) -> {tower: {layer: tokens}}`; see `method.py`.

Every method is constructed as `METHODS[name](**sizes, **options)`, where `sizes` are those of `towers`, {tower:
(layers, width)}, and `embed_dim` that it declares. Its parameters are a dict of subtrees; `sharing` gives every subtree
its slots.
"""

from typing import Any

from jax_promptmtl.methods.adapter import FeatureAdapter
from jax_promptmtl.methods.dlm import DoubleLayerMapper
from jax_promptmtl.methods.maple import CoupledPrompts
from jax_promptmtl.methods.middle import MiddleAdapter, MiddlePrompts
from jax_promptmtl.methods.mlp import ProjectedPrompts
from jax_promptmtl.methods.mmap import KroneckerPrompts
from jax_promptmtl.methods.none import NoPrompts
from jax_promptmtl.methods.tokens import TokenPrompts

METHODS: dict[str, Any] = {
    "none": NoPrompts,  # zero-shot; full fine-tuning and BitFit with `tune`
    "mmap": KroneckerPrompts,
    "tokens": TokenPrompts,  # CoOp, VPT, and both jointly
    "maple": CoupledPrompts,
    "mlp": ProjectedPrompts,
    "adapter": FeatureAdapter,  # CLIP-Adapter
    "dlm": DoubleLayerMapper,  # DLM-VMTL
    "middle_prompts": MiddlePrompts,  # no auxiliary; VPT-shallow where the middle is 0
    "middle_adapter": MiddleAdapter,
}
