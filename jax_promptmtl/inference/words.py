"""Nearest words of text prompts, by cosine with the token embeddings of the text tower."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jax_promptmtl.core.outline import outline
from jax_promptmtl.methods.make import make_method
from jax_promptmtl.models.clip.model import ClipConfig, TextTokenizer

DIRECTIONS = 64  # random directions for the chance level


@dataclass(frozen=True)
class Vocabulary:
    """V words and their unit embeddings float[V, D]."""

    words: tuple[str, ...]
    directions: np.ndarray
    __repr__ = outline


def vocabulary(tokenizer: TextTokenizer, table: Any) -> Vocabulary:
    """Return the words that are single tokens, with their rows of the embedding table."""
    found = tokenizer.words()
    return Vocabulary(tuple(found.values()), unit(np.asarray(table, np.float32)[list(found)]))


def unit(rows: np.ndarray) -> np.ndarray:
    """Normalise rows to length 1; zero rows are kept."""
    directions: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    return directions


def nearest(prompts: np.ndarray, among: Vocabulary, count: int) -> list[list[tuple[str, float]]]:
    """Return the words nearest to each prompt with their cosines, best first.

    Args:
      prompts: float[P, D].
      among: V words.
      count: words per prompt.

    >>> among = Vocabulary(("up", "right"), np.eye(2)[::-1])
    >>> nearest(np.array([[3.0, 4.0]]), among, 1)
    [[('up', 0.8)]]
    """
    cosines = unit(np.asarray(prompts)) @ among.directions.T
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return [[(among.words[w], float(row[w])) for w in some] for row, some in zip(cosines, best, strict=True)]


def chance(among: Vocabulary) -> float:
    """Estimate the mean cosine of a random direction with its nearest word."""
    directions = np.random.default_rng(0).normal(size=(DIRECTIONS, among.directions.shape[1]))
    return float((unit(directions) @ among.directions.T).max(axis=1).mean())


def tokens(method: Mapping[str, Any], sizes: ClipConfig, per_task: Any, tower: str) -> dict[int, np.ndarray]:
    """Return the prompts of a tower, layer -> float[T, P, D]; {} where a method has none.

    Args:
      method: the name and options of the config.
      sizes: of the backbone.
      per_task: the method's parameters, every leaf [T, ...].
      tower: text or image.
    """
    if not jax.tree.leaves(per_task):
        return {}
    prompter = make_method(method, {"towers": sizes.towers, "embed_dim": sizes.embed_dim})
    prompts_of: Callable[[Any], Any] = jax.vmap(lambda leaves: prompter.apply({"params": leaves}))
    made = jax.jit(lambda leaves: prompts_of(leaves).get(tower, {}))(per_task)
    return {layer: np.asarray(rows) for layer, rows in made.items()}


def prompts(method: Mapping[str, Any], sizes: ClipConfig, per_task: Any) -> np.ndarray | None:
    """Return the text tower's prompts of layer 0, float[T, P, D], or None; see `tokens`."""
    return tokens(method, sizes, per_task, "text").get(0)
