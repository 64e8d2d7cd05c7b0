"""What to say when the numbers of a step are not finite: which tasks, and which examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jax_promptmtl.core.errors import UserError

SHOWN = 8  # examples that a message names


class Diverged(UserError):
    """The loss or its gradient is not a number any more."""


def suspects(batch: Mapping[str, Any], losses: Any) -> np.ndarray:
    """Return which examples of a batch may have made its loss or gradient not finite.

    Args:
      batch: arrays [B, ...], with `task` and `weight`; an example of weight 0 is padding and never suspect.
      losses: of the tasks, float[T].

    Returns:
      bool[B]: the examples whose own numbers are not finite; where there is none, those of the tasks whose loss is not;
      where there is none either, as when only the gradient overflows, all.

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
    """Return the suspect tasks and examples as text; an example without a name is told by its place in the batch.

    >>> batch = {"task": np.array([0, 1]), "weight": np.ones(2)}
    >>> explain(batch, [1.0, np.inf], ("ink", "oil"), ["ink/1.png", "oil/7.png"])
    'task oil, examples oil/7.png'
    """
    places = np.flatnonzero(suspects(batch, losses))
    who = sorted({tasks[task] for task in np.asarray(batch["task"])[places]})
    shown = [names[place] if names else f"number {place} of the batch" for place in places[:SHOWN]]
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return f"task{'s' * (len(who) > 1)} {', '.join(who)}, examples {', '.join(shown)}{more}"
