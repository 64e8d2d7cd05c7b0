"""Fold the frozen batch norms of ResNet checkpoints."""

import numpy as np

from jax_promptmtl.models.weights.table import State

EPSILON = 1e-5  # torchvision's and detectron2's


def fold(state: State) -> State:
    """Fold the four vectors of a frozen batch norm into a scale, `weight`, and a `bias`.

    >>> norm = {"weight": np.array([2.0]), "bias": np.array([1.0]), "running_mean": np.array([3.0])}
    >>> norm |= {"running_var": np.array([4.0 - EPSILON])}
    >>> {name: leaf.tolist() for name, leaf in fold({f"norm.{name}": leaf for name, leaf in norm.items()}).items()}
    {'norm.weight': [1.0], 'norm.bias': [-2.0]}
    """
    out = {name: leaf for name, leaf in state.items() if ".running_" not in name}
    for name, variance in state.items():
        stem, found, _ = name.partition(".running_var")
        if found and {f"{stem}.{part}" for part in ("weight", "bias", "running_mean")} <= state.keys():
            factor = state[f"{stem}.weight"].astype(np.float64) / np.sqrt(variance.astype(np.float64) + EPSILON)
            out[f"{stem}.weight"] = factor
            out[f"{stem}.bias"] = state[f"{stem}.bias"] - state[f"{stem}.running_mean"] * factor
    return out
