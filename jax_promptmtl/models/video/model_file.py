"""Our model files: `<name>.safetensors` with a card `<name>.json` that holds the hash of the weights.

One writer and one reader serve the models shipped with the package, those trained by `configs/video.py` and
`configs/video_full.py`, and the weights passed between training stages.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.files import read_json, sync_folder, write_whole
from jax_promptmtl.core.hashes import weights_sha256

PyTree = Any
SUFFIX = ".safetensors"


class Model(NamedTuple):
    """Weights with their card."""

    params: PyTree
    card: Mapping[str, Any]


def write_model(folder: str | os.PathLike[str], name: str, params: PyTree, card: Mapping[str, Any]) -> pathlib.Path:
    """Write weights as float32 and their card; returns the path of the weights."""
    path = pathlib.Path(folder) / f"{name}{SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    leaves = {key: np.ascontiguousarray(leaf, np.float32) for key, leaf in tree.flatten(params).items()}
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    save_file(leaves, draft)
    draft.replace(path)
    sync_folder(path.parent)
    content = {"task": name, "sha256": weights_sha256(tree.unflatten(leaves)), "parameters": tree.count(params)}
    write_whole(path.with_suffix(".json"), json.dumps(content | dict(card), indent=2) + "\n")  # last: it vouches
    return path


def has_card(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is one of ours, with a card beside it."""
    weights = pathlib.Path(path)
    return weights.suffix == SUFFIX and weights.with_suffix(".json").is_file()


def read_model(path: str | os.PathLike[str], *, shapes: PyTree = None, advice: str = "train it again") -> Model:
    """Load weights and verify them against their card.

    Args:
      path: of the weights.
      shapes: tree of expected shapes; any if `None`.
      advice: for the error message: how to fix a refused file.

    Raises:
      UserError: a missing or damaged file, other shapes, or weights that do not match the card's hash.
    """
    weights = pathlib.Path(path)
    try:
        params, card = tree.unflatten(load_file(weights)), read_json(weights.with_suffix(".json"))
        sha = card["sha256"]
    except (OSError, ValueError, KeyError, SafetensorError, UserError) as error:
        why = f"Cannot read the model {str(weights)!r} or its card ({type(error).__name__})"
        raise UserError(f"{why}; {advice}.") from error
    difference = "" if shapes is None else tree.describe_difference(shapes, params)
    if difference or weights_sha256(params) != sha:
        what = difference or "other bytes"
        raise UserError(f"The model {str(weights)!r} is not what its card says: {what}; {advice}.")
    return Model(params, card)
