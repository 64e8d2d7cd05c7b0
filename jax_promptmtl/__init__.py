"""Prompt learning for multi-task vision in JAX.

Letters in shapes: `B` batch, `T` tasks, `S` slots, `G` groups, `C` classes, `K` layers, `N` tokens, `P` prompt tokens,
`D` width, `H` heads, `L` frames.
"""

__version__ = "0.1.0"
