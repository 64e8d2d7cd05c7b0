"""Random weights for tests of models against references, drawn without running an initialiser, and quick compiling."""

from functools import partial

import jax
import numpy as np

from jax_promptmtl.core import tree

fast = partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)


def draw(model, *inputs, seed=0):
    """Return random parameters of a module for such inputs: kernels keep the scale, biases and scales matter."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
    rng, leaves = np.random.default_rng(seed), {}
    for path, leaf in tree.flatten(shapes).items():
        kind = path.rpartition("/")[2]
        spread = {"kernel": float(np.prod(leaf.shape[:-1])) ** -0.5, "bias": 0.2, "scale": 0.2}.get(kind, 1.0)
        leaves[path] = (spread * rng.standard_normal(leaf.shape) + (kind == "scale")).astype(np.float32)
    return tree.unflatten(leaves)
