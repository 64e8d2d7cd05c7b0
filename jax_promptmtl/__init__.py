"""Prompt learning for multi-task vision in JAX. `load` gives what was trained.

Letters in shapes: `B` batch, `T` tasks, `S` slots, `G` groups, `C` classes, `K` layers, `N` tokens, `P` prompt tokens,
`D` width, `H` heads, `L` frames.
"""

__version__ = "0.1.0"


def load(place, *, classes=None, backbone=None):
    """Load what was trained, for images or clips: `load("runs/mmap").predict(["bell.png"], task="line").labels`.

    See `jax_promptmtl.inference.trained.load`.
    """
    from jax_promptmtl.inference import trained  # only now: the package itself imports nothing

    return trained.load(place, classes=classes, backbone=backbone)
