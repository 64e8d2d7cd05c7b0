"""A frozen video model with its input form, and its middle state as arrays of a batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.outline import outline
from jax_promptmtl.data.video_batches import cut_prefix
from jax_promptmtl.models.video.middle import Middle, VideoBackbone

PyTree = Any
Batch = Mapping[str, Any]


@dataclass(frozen=True)
class View:
    """A frozen model with its input form.

    Attributes:
      backbone: the model.
      adapt: pure function from a batch to the inputs of the model's lower half.
      spec: a description of `adapt`; a cache is valid only for an equal one.
    """

    backbone: VideoBackbone
    adapt: Callable[[Batch], Any]
    spec: Mapping[str, Any] = field(default_factory=dict)
    __repr__ = outline


def pack(state: Middle, name: str) -> dict[str, Any]:
    """Return a middle state as flat arrays of a batch; `unpack` inverts it where `carry` is made of dicts and tuples.

    >>> sorted(pack(Middle(0, 1, {"boxes": (2, 3)}), "vit"))
    ['middle/vit/carry/boxes/0', 'middle/vit/carry/boxes/1', 'middle/vit/mask', 'middle/vit/tokens']
    """

    def spread(node: Any, path: str) -> dict[str, Any]:
        if not isinstance(node, (Mapping, tuple, list)):
            return {path: node}
        items = node.items() if isinstance(node, Mapping) else enumerate(node)
        return {key: leaf for part, child in items for key, leaf in spread(child, f"{path}/{part}").items()}

    return spread({"tokens": state.tokens, "mask": state.mask, "carry": state.carry}, f"middle/{name}")


def unpack(batch: Batch, name: str) -> Middle:
    """Return a model's middle state from the arrays of a batch."""

    def gather(node: Any) -> Any:
        if not isinstance(node, Mapping):
            return node
        children = {key: gather(child) for key, child in node.items()}
        listed = all(key.isdigit() for key in children)
        return tuple(children[key] for key in sorted(children, key=int)) if listed else children

    found = cut_prefix(batch, f"middle/{name}/")
    if "tokens" not in found:
        raise UserError(f"The batch brings no middle state of {name!r}; fill its cache or take it out of `cached`.")
    return Middle(found["tokens"], found["mask"], gather(tree.unflatten(found).get("carry", {})))
