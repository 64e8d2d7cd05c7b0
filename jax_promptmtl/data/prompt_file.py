"""Prompts as files: the array in safetensors, and a JSON of the same name that says where they belong."""

import json
import pathlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from jax_promptmtl.core.errors import UserError

SCHEMA = 1


@dataclass(frozen=True)
class PromptCard:
    """Where saved prompts come from and where they fit.

    Attributes:
      task: the primary's task.
      backbone: name of the primary model.
      sha256: of its weights.
      middle: layer before which they enter.
      dim: their width.
      aux: names of the auxiliaries.
      prompt_mode: how they were trained.
      clips: whose mean they are.
    """

    task: str
    backbone: str
    sha256: str
    middle: int
    dim: int
    aux: tuple[str, ...]
    prompt_mode: str
    clips: str


def save(path: str | pathlib.Path, prompts: np.ndarray, card: PromptCard) -> None:
    """Write `<path>.safetensors` and `<path>.json`.

    Args:
      path: without an ending.
      prompts: float32[P, D].
      card: what they are.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"prompts": np.ascontiguousarray(prompts, np.float32)}, path.with_name(path.name + ".safetensors"))
    content = {"schema": SCHEMA, "prompts": len(prompts)} | asdict(card)
    path.with_name(path.name + ".json").write_text(json.dumps(content, indent=2) + "\n")


def load(path: str | pathlib.Path, *, middle: int, dim: int, task: str) -> tuple[np.ndarray, PromptCard]:
    """Read prompts for a primary model.

    Args:
      path: without an ending.
      middle, dim: of the model that gets them.
      task: of the model; prompts serve other data of the same task.

    Returns:
      float32[P, D] and their card.

    Raises:
      UserError: no such files, or prompts of another task, width or middle.
    """
    path = pathlib.Path(path)
    try:
        content: Mapping[str, Any] = json.loads(path.with_name(path.name + ".json").read_text())
        prompts = load_file(path.with_name(path.name + ".safetensors"))["prompts"]
        card = PromptCard(**{field.name: content[field.name] for field in fields(PromptCard)})
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"Cannot read the prompts {str(path)!r} ({type(error).__name__}: {error}); give the name that "
            "was saved, without .safetensors or .json."
        ) from error
    for what, has, wants in (("task", card.task, task), ("dim", card.dim, dim), ("middle", card.middle, middle)):
        if has != wants:
            raise UserError(
                f"The prompts {str(path)!r} are for {what} {has!r}, and the model has {wants!r}; give others."
            )
    if prompts.shape[1:] != (dim,):
        raise UserError(f"The prompts {str(path)!r} have shape {prompts.shape}, not [P, {dim}]; save them again.")
    return prompts, card


def fit_width(prompts: np.ndarray, width: int, seed: int) -> np.ndarray:
    """Return prompts of another width, by a fixed random orthogonal map, with the same root mean square.

    Prompts of a task whose model has another width cannot be copied (MVLPT leaves this open).

    Args:
      prompts: float[P, D].
      width: wanted.
      seed: of the map.

    Returns:
      float32[P, width]; the prompts themselves where they have that width.

    >>> fit_width(np.ones((2, 4), np.float32), 6, 0).shape
    (2, 6)
    """
    rows, columns = prompts.shape[1], width
    if rows == columns:
        return np.asarray(prompts, np.float32)
    square = np.random.default_rng(seed).normal(size=(max(rows, columns),) * 2)
    turned = prompts.astype(np.float64) @ np.linalg.qr(square)[0][:rows, :columns]
    size = np.sqrt(np.mean(np.square(prompts, dtype=np.float64)) / max(np.mean(turned**2), 1e-30))
    result: np.ndarray = (turned * size).astype(np.float32)
    return result
