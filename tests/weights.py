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


def opengvlab(params):
    """Write parameters under the names of OpenGVLab's checkpoints, by hand."""
    state = {
        "patch_embed.proj.weight": np.transpose(params["trunk"]["patch"]["kernel"], (4, 3, 0, 1, 2)),
        "patch_embed.proj.bias": params["trunk"]["patch"]["bias"],
        "fc_norm.weight": params["pool"]["fc_norm"]["scale"],
        "fc_norm.bias": params["pool"]["fc_norm"]["bias"],
        "head.weight": params["pool"]["head"]["kernel"].T,
        "head.bias": params["pool"]["head"]["bias"],
    }
    for name, block in params["trunk"]["transformer"].items():
        stem, attn = f"blocks.{name.removeprefix('blocks_')}", block["attn"]
        kernels = [attn[part]["kernel"].T for part in ("query", "key", "value")]
        state |= {f"{stem}.attn.qkv.weight": np.concatenate(kernels)}
        state |= {f"{stem}.attn.q_bias": attn["query"]["bias"], f"{stem}.attn.v_bias": attn["value"]["bias"]}
        for theirs, ours in (
            ("attn.proj", attn["out"]),
            ("mlp.fc1", block["mlp"]["fc"]),
            ("mlp.fc2", block["mlp"]["proj"]),
        ):
            state |= {f"{stem}.{theirs}.weight": ours["kernel"].T, f"{stem}.{theirs}.bias": ours["bias"]}
        for theirs, ours in (("norm1", block["ln_1"]), ("norm2", block["ln_2"])):
            state |= {f"{stem}.{theirs}.weight": ours["scale"], f"{stem}.{theirs}.bias": ours["bias"]}
    return {name: np.ascontiguousarray(leaf) for name, leaf in state.items()}
