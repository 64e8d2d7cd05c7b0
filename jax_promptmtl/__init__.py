"""Prompt learning for multi-task vision in JAX. `load` returns a predictor; the other names are building blocks.

Names are imported on first use, so that the package itself imports nothing; docs/python.md has an example of each.

Letters in shapes: `B` batch, `T` tasks, `S` slots, `G` groups, `C` classes, `K` layers, `N` tokens, `P` prompt tokens,
`D` width, `H` heads, `L` frames.
"""

import importlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jax_promptmtl.core.problem import Problem
    from jax_promptmtl.data import suites
    from jax_promptmtl.data.source import ArraySource, Suite, Task
    from jax_promptmtl.engine import loop, optim, step
    from jax_promptmtl.inference.image_predictor import Predictor
    from jax_promptmtl.inference.video_predictor import VideoPredictor
    from jax_promptmtl.methods import clustering, grouping
    from jax_promptmtl.models.clip.load import load as load_clip
    from jax_promptmtl.problems import clip_mtl, video_mtl

__version__ = "0.1.0"
__all__ = [
    "ArraySource",
    "Problem",
    "Suite",
    "Task",
    "clip_mtl",
    "clustering",
    "grouping",
    "load",
    "load_clip",
    "loop",
    "optim",
    "step",
    "suites",
    "video_mtl",
]
PLACES = {  # name: room or module, and the name there
    "ArraySource": ("data.source", "ArraySource"),
    "Problem": ("core.problem", "Problem"),
    "Suite": ("data.source", "Suite"),
    "Task": ("data.source", "Task"),
    "clip_mtl": ("problems.clip_mtl", ""),
    "clustering": ("methods.clustering", ""),
    "grouping": ("methods.grouping", ""),
    "load_clip": ("models.clip.load", "load"),
    "loop": ("engine.loop", ""),
    "optim": ("engine.optim", ""),
    "step": ("engine.step", ""),
    "suites": ("data.suites", ""),
    "video_mtl": ("problems.video_mtl", ""),
}


def load(
    place: str | os.PathLike[str], *, classes: Sequence[str] | None = None, backbone: str | None = None
) -> "Predictor | VideoPredictor":
    """Load a predictor for images or videos: `load("runs/mmap").predict(["bell.png"], task="line").labels`.

    See `jax_promptmtl.inference.trained.load`.
    """
    from jax_promptmtl.inference import trained

    return trained.load(place, classes=classes, backbone=backbone)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = PLACES[name]
    found = importlib.import_module(f"{__name__}.{module}")
    globals()[name] = getattr(found, attribute) if attribute else found
    return globals()[name]


def __dir__() -> list[str]:
    """Return all names, those not yet imported too."""
    return sorted({*globals(), *__all__})
