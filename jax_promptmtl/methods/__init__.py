"""Prompt methods: small Linen modules that return prompts, `method() -> {tower: {layer: tokens}}`; see `method.py`.

Every method is constructed as `METHODS[name](**sizes, **options)`, where `sizes` are those of `towers`, {tower:
(layers, width)}, and `embed_dim` that it declares. Its parameters are a dict of subtrees; `sharing` gives every subtree
its slots.
"""

from collections.abc import Mapping
from typing import Any

from jax_promptmtl.core.errors import pick
from jax_promptmtl.methods.adapter import FeatureAdapter
from jax_promptmtl.methods.dlm import DoubleLayerMapper
from jax_promptmtl.methods.maple import CoupledPrompts
from jax_promptmtl.methods.method import Method
from jax_promptmtl.methods.middle import MiddleAdapter, MiddlePrompts
from jax_promptmtl.methods.mlp import ProjectedPrompts
from jax_promptmtl.methods.mmap import KroneckerPrompts
from jax_promptmtl.methods.none import NoPrompts
from jax_promptmtl.methods.tokens import TokenPrompts

METHODS: dict[str, type[Method]] = {
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


def make_method(config: Mapping[str, Any], sizes: Mapping[str, Any]) -> Method:
    """Construct the method that `config["name"]` names.

    Args:
      config: the name; the other keys are the method's options.
      sizes: what a method may know of the backbone; it gets those that it declares.

    Raises:
      UserError: an unknown method or option.
    """
    constructor = METHODS[pick(config["name"], METHODS, "method")]
    fields = [name for name in constructor.__dataclass_fields__ if name not in ("parent", "name")]
    options = {key: value for key, value in config.items() if key != "name"}
    for option in options:
        pick(option, [name for name in fields if name not in sizes], f"option of the method {config['name']!r}")
    return constructor(**{name: size for name, size in sizes.items() if name in fields}, **options)
