"""Hugging Face's Mask2Former with our weights, as a reference."""

import numpy as np

from jax_promptmtl.core import tree


def affine(theirs, ours):
    return [(f"{theirs}.weight", f"{ours}/kernel"), (f"{theirs}.bias", f"{ours}/bias")]


def norm(theirs, ours):
    return [(f"{theirs}.weight", f"{ours}/scale"), (f"{theirs}.bias", f"{ours}/bias")]


def config(**sizes):
    """Return a tiny config, without dropout."""
    from transformers import Mask2FormerConfig

    small = {"feature_size": 32, "hidden_dim": 32, "mask_feature_size": 8, "num_attention_heads": 4, "dropout": 0.0}
    small |= {"feature_strides": [4, 8, 16, 32], "common_stride": 4}
    return Mask2FormerConfig(**small | sizes)


def load(module, params, rows):
    """Fill a module of torch by rows of (their name, our path or paths, which are stacked); return it."""
    import torch

    leaves, state, wanted = tree.flatten(params), {}, module.state_dict()
    rows = [(name, (paths,) if isinstance(paths, str) else paths) for name, paths in rows]
    for name, paths in rows:
        parts = [np.asarray(leaves[path]) for path in paths]
        if paths[0].endswith("kernel"):
            parts = [part.transpose(3, 2, 0, 1) if part.ndim == 4 else part.T for part in parts]
        state[name] = torch.tensor(np.concatenate(parts)).reshape(wanted[name].shape)
    module.load_state_dict(state)
    assert {path for _, paths in rows for path in paths} == leaves.keys()
    return module.eval()
