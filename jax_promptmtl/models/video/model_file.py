"""Model files of our own: `<name>.safetensors`, and beside it `<name>.json`, a card with the hash of the weights.

There is one writer and one reader: of the models that come with the package, of those that `configs/video.py` and
`configs/video_full.py` train, and of the weights that a stage of a training hands to the next.
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
    """Weights, and what their card says of them."""

    params: PyTree
    card: Mapping[str, Any]


def write_model(folder: str | os.PathLike, name: str, params: PyTree, card: Mapping[str, Any]) -> pathlib.Path:
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


def has_card(path: str | os.PathLike) -> bool:
    """Return whether a file is one of ours: weights of others have no card beside them."""
    weights = pathlib.Path(path)
    return weights.suffix == SUFFIX and weights.with_suffix(".json").is_file()


def read_model(path: str | os.PathLike, *, shapes: PyTree = None, advice: str = "train it again") -> Model:
    """Read weights, and compare them with their card.

    Args:
      path: of the weights.
      shapes: a tree of the shapes that are wanted; any when `None`.
      advice: what to do about a file that is refused.

    Raises:
      UserError: a file that is missing or damaged, of other shapes, or whose weights are not those of the card.
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
