"""Diagnose a non-finite step: which tasks and which examples caused it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jax_promptmtl.core.errors import UserError

SHOWN = 8  # examples named in a message


class Diverged(UserError):
    """The loss or its gradient is not finite."""


def suspects(batch: Mapping[str, Any], losses: Any) -> np.ndarray:
    """Return the examples of a batch that may have made its loss or gradient non-finite.

    Args:
      batch: arrays [B, ...], with `task` and `weight`; an example of weight 0 is padding and never suspect.
      losses: float[T], one per task.

    Returns:
      bool[B]: the examples with non-finite inputs; failing that, those of tasks with a non-finite loss; failing
      that, as when only the gradient overflows, all.

    >>> batch = {"task": np.array([0, 1, 1]), "weight": np.ones(3), "image": np.zeros((3, 2))}
    >>> suspects(batch, [1.0, np.nan]).tolist()
    [False, True, True]
    """
    real, bad = np.asarray(batch["weight"]) > 0, np.zeros(len(batch["weight"]), bool)
    for value in map(np.asarray, batch.values()):
        if np.issubdtype(value.dtype, np.floating):
            bad |= ~np.isfinite(value).reshape(len(bad), -1).all(axis=1)
    for found in (bad, ~np.isfinite(losses)[batch["task"]]):
        if (found & real).any():
            return found & real
    return real


def explain(batch: Mapping[str, Any], losses: Any, tasks: Sequence[str], names: Sequence[str] | None) -> str:
    """Return the suspect tasks and examples as text; unnamed examples are given by their index in the batch.

    >>> batch = {"task": np.array([0, 1]), "weight": np.ones(2)}
    >>> explain(batch, [1.0, np.inf], ("ink", "oil"), ["ink/1.png", "oil/7.png"])
    'task oil, examples oil/7.png'
    """
    places = np.flatnonzero(suspects(batch, losses))
    who = sorted({tasks[task] for task in np.asarray(batch["task"])[places]})
    shown = [names[place] if names else f"number {place} of the batch" for place in places[:SHOWN]]
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return f"task{'s' * (len(who) > 1)} {', '.join(who)}, examples {', '.join(shown)}{more}"
