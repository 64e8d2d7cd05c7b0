"""Digests of weights."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_promptmtl.core import tree


def weights_sha256(params: Mapping[str, Any]) -> str:
    """Return the SHA-256 over the paths, shapes, dtypes and bytes of a parameter tree."""
    digest = hashlib.sha256()
    for path, leaf in tree.flatten(params).items():
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path} {array.shape} {array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
