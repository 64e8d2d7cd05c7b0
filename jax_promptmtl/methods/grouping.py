"""Task grouping from gradients, eq. 8 of MmAP: similarity over snapshots, groups, their stability, and grouping.json.

While one prompt shared by all tasks is trained, every step leaves a snapshot: the gradient of each task's mean loss
with respect to that prompt. Similarity is the mean of their inner products; `partition` turns it into groups.
TAG's look-ahead affinity needs extra forward passes in the training loop and is not here; TAG's group score on
disjoint groups is the objective `mean` with singletons forbidden.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.core.files import write_whole
from jax_promptmtl.core.tree import flatten
from jax_promptmtl.methods.clustering import DEFAULT_RULE, Groups, Partition, Rule, partition

KINDS = ("dot", "cosine", "split_half")
SKETCH = 256  # keeps norms to about sqrt(2 / 256) = 9 %, and their square root, which split_half uses, to 4 %
SCHEMA = 1


def task_gradients(per_task_grads: Mapping[str, Any], batch: Mapping[str, Any]) -> jax.Array:
    """Return the gradient of each task's mean loss as one row, float32[T, n].

    Args:
      per_task_grads: gradients of sum(weight * loss) with respect to the per-task parameters: leaves [T, ...], `None`
        where frozen; summed over all devices. Rows follow the sorted paths.
      batch: the whole batch, with `task` int[B] and `weight` float[B].

    Returns:
      float32[T, n]; tasks without examples in the batch get rows of zeros, which `Similarity` ignores.

    >>> batch = {"task": jnp.array([0, 0, 1]), "weight": jnp.array([0.5, 0.5, 0.25])}
    >>> task_gradients({"source": jnp.ones((2, 1, 2)), "frozen": None}, batch).tolist()
    [[1.0, 1.0], [4.0, 4.0]]
    """
    leaves = [leaf for leaf in flatten(per_task_grads).values() if leaf is not None]
    chex.assert_equal_shape_prefix(leaves, 1)
    num_tasks = leaves[0].shape[0]
    rows = jnp.concatenate([leaf.reshape(num_tasks, -1).astype(jnp.float32) for leaf in leaves], axis=1)
    weight = jnp.zeros(num_tasks).at[batch["task"]].add(batch["weight"])
    seen = weight[:, None] > 0
    return jnp.where(seen, rows / jnp.where(seen, weight[:, None], 1.0), 0.0)


def observe(per_task_grads: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Summarise one step for `Similarity.add_observed`, small enough to log every step; the engine's `observe`.

    Args:
      per_task_grads, batch: as for `task_gradients`.

    Returns:
      `gram` float32[T, T], the exact inner products of the task gradients, and `sketch` float32[T, 256], a fixed
      count-sketch of them (Charikar et al. 2002): entries with random signs added up in random bins. Inner products of
      sketches are unbiased, which lets gradients of different steps be compared without storing them.
    """
    rows = task_gradients(per_task_grads, batch)
    bins, signs = jax.random.split(jax.random.key(0))
    bins = jax.random.randint(bins, rows.shape[1:], 0, SKETCH)
    signed = rows * jax.random.rademacher(signs, rows.shape[1:], rows.dtype)
    gram = jnp.matmul(rows, rows.T, precision=jax.lax.Precision.HIGHEST)
    return {"gram": gram, "sketch": jnp.zeros((len(rows), SKETCH)).at[:, bins].add(signed)}


class Similarity:
    """Pairwise task similarity over the snapshots of a training run; host side, float64.

    Every snapshot keeps its T x T Gram matrix and the inner product of each task's gradient with the one before, so
    that all statistics, their per-epoch course and bootstrap resamples follow from little memory.

    Args:
      names: T task names.
      steps_per_epoch: splits the steps, counted from 1, into epochs, counted from 1.
      warmup_steps: the first snapshots count in `per_epoch` only; during the constant tiny learning rate of the first
        epoch all gradients are taken at the initial prompt.
    """

    def __init__(self, names: Sequence[str], steps_per_epoch: int, warmup_steps: int = 0):
        self.names, self.steps_per_epoch, self.warmup_steps = tuple(names), int(steps_per_epoch), int(warmup_steps)
        self._steps: list[int] = []
        self._grams: list[np.ndarray] = []  # <g_i, g_j>; zero rows where a task was absent
        self._halves: list[np.ndarray] = []  # <g_i of the snapshot before, g_i>; NaN where one of them is missing
        self._previous: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of snapshots after warm-up."""
        return int(self._kept().sum())

    def add(self, step: int, grads: np.ndarray) -> None:
        """Take one snapshot of whole gradients.

        Args:
          step: number of the optimiser step, increasing.
          grads: float[T, n] from `task_gradients`.
        """
        grads = np.asarray(grads, np.float64)
        self.add_observed(step, {"gram": grads @ grads.T, "sketch": grads})

    def add_observed(self, step: int, observed: Mapping[str, np.ndarray]) -> None:
        """Take one snapshot from what `observe` returned; the engine's `on_observed`."""
        gram, sketch = (np.asarray(observed[key], np.float64) for key in ("gram", "sketch"))
        chex.assert_shape(gram, (len(self.names), len(self.names)))
        finite = np.isfinite(np.diag(gram))
        if not finite.all():
            bad = ", ".join(np.array(self.names)[~finite])
            raise UserError(f"The gradient of {bad} is not finite at step {step}; lower the learning rate of grouping.")
        if self._steps and step <= self._steps[-1]:
            raise ValueError(f"snapshot of step {step} after that of step {self._steps[-1]}")
        before, seen = sketch if self._previous is None else self._previous, np.diag(gram) > 0
        seen_before = np.diag(self._grams[-1]) > 0 if self._grams else np.zeros_like(seen)
        self._steps.append(int(step))
        self._grams.append(gram)
        self._halves.append(np.where(seen & seen_before, np.einsum("tn,tn->t", before, sketch), np.nan))
        self._previous = sketch

    def matrix(self, kind: str = "dot", snapshots: np.ndarray | None = None) -> np.ndarray:
        """Return the mean similarity float[T, T].

        Args:
          kind: `dot`, eq. 8; `cosine`, the mean of cosines; `split_half`, S_ij / sqrt(D_i D_j) where D_i is the mean
            inner product of task i's gradients on consecutive, independent mini-batches. The dot product is unbiased
            off the diagonal, the cosine biased towards 0 by mini-batch noise, split_half free of that noise; a task
            whose D_i is not positive carries no reliable signal and gets similarity 0.
          snapshots: indices to average over, instead of all after warm-up; repeats count.
        """
        pick(kind, KINDS, "task similarity")
        grams, halves = self._select(snapshots)
        values, seen = _normalise(grams) if kind == "cosine" else (grams, _seen(grams))
        mean = _mean(values, seen, self.names)
        if kind != "split_half":
            return mean
        counted = ~np.isnan(halves)
        signal = np.where(counted, halves, 0).sum(0) / np.maximum(counted.sum(0), 1)
        scale = np.where(signal > 0, 1 / np.sqrt(np.where(signal > 0, signal, 1)), 0)
        normalised = mean * np.outer(scale, scale)
        np.fill_diagonal(normalised, (signal > 0).astype(float))
        result: np.ndarray = normalised
        return result

    def std(self) -> np.ndarray:
        """Return the standard deviation of the dot product over snapshots, float[T, T]."""
        grams, _ = self._select(None)
        seen, mean = _seen(grams), self.matrix("dot")
        result: np.ndarray = np.sqrt(_mean(np.where(seen, (grams - mean) ** 2, 0), seen, self.names))
        return result

    def count(self) -> np.ndarray:
        """Return in how many snapshots both tasks were present, int[T, T]."""
        result: np.ndarray = _seen(self._select(None)[0]).sum(0)
        return result

    def conflict_rate(self) -> np.ndarray:
        """Return the share of snapshots in which two gradients conflict (negative dot product), float[T, T]."""
        grams, _ = self._select(None)
        return _mean((grams < 0).astype(float), _seen(grams), self.names)

    def per_epoch(self, kind: str = "dot") -> tuple[list[int], np.ndarray]:
        """Return the epochs that have snapshots, warm-up included, and their mean `dot` or `cosine` float[E, T, T]."""
        epochs = (np.array(self._steps) - 1) // self.steps_per_epoch + 1
        present = np.unique(epochs).tolist()
        return present, np.stack([self.matrix(kind, np.flatnonzero(epochs == epoch)) for epoch in present])

    def save(self, path: str | pathlib.Path) -> None:
        """Write everything to an .npz file, from which grouping resumes bit-exactly."""
        previous = np.zeros((0, 0)) if self._previous is None else self._previous
        about = json.dumps([self.names, self.steps_per_epoch, self.warmup_steps])
        with open(path, "wb") as file:
            np.savez_compressed(
                file, about=about, steps=self._steps, grams=self._grams, halves=self._halves, previous=previous
            )

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "Similarity":
        """Load a file written by `save`."""
        with np.load(path, allow_pickle=False) as file:
            similarity = cls(*json.loads(str(file["about"])))
            similarity._steps = file["steps"].astype(int).tolist()
            similarity._grams, similarity._halves = list(file["grams"]), list(file["halves"])
            similarity._previous = file["previous"] if file["previous"].size else None
        return similarity

    def _kept(self) -> np.ndarray:
        return np.array(self._steps, int) > self.warmup_steps

    def _select(self, snapshots: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        indices = np.flatnonzero(self._kept()) if snapshots is None else snapshots
        if not len(indices):
            raise UserError(
                f"Grouping has no gradient snapshot after its {self.warmup_steps} warm-up steps; train it for longer."
            )
        return np.stack(self._grams)[indices], np.stack(self._halves)[indices]


def _seen(grams: np.ndarray) -> np.ndarray:
    """Return bool[S, T, T]: whether both tasks of a pair had examples in a snapshot."""
    present = np.einsum("stt->st", grams) > 0
    result: np.ndarray = present[:, :, None] & present[:, None, :]
    return result


def _normalise(grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines [S, T, T] and where they exist."""
    norms = np.sqrt(np.einsum("stt->st", grams))
    seen = _seen(grams)
    return grams / np.where(seen, norms[:, :, None] * norms[:, None, :], 1), seen


def _mean(values: np.ndarray, seen: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Average [S, T, T] over the snapshots in which a pair was seen."""
    count = seen.sum(0)
    if not count.all():
        one, two = np.argwhere(count == 0)[0]
        raise UserError(
            f"Tasks {names[one]!r} and {names[two]!r} never shared a batch of gradient snapshots; raise the batch size."
        )
    result: np.ndarray = np.where(seen, values, 0).sum(0) / count
    return result


def stability(
    similarity: Similarity,
    groups: Groups,
    kind: str = "dot",
    rule: Rule = DEFAULT_RULE,
    *,
    repeats: int = 200,
    seed: int = 0,
) -> float:
    """Return the share of bootstrap resamples of the snapshots that give the same groups.

    Args:
      similarity: the snapshots.
      groups: the partition found on all of them.
      kind: of similarity.
      rule: as given to `partition`. Beyond 10 tasks resamples use the heuristic with four restarts.
      repeats: number of resamples, drawn with replacement from `seed`.
    """
    snapshots = np.flatnonzero(similarity._kept())
    rng = np.random.default_rng(seed)
    same = 0
    for _ in range(repeats):
        matrix = similarity.matrix(kind, rng.choice(snapshots, len(snapshots)))
        same += partition(matrix, rule, top=1, restarts=4, exact_limit=10).groups == groups
    return same / repeats


def random_groups(groups: Groups, seed: int) -> Groups:
    """Draw uniformly a partition with the group sizes of `groups` that differs from it (Table 3, "Random").

    >>> random_groups(((0, 1), (2, 3)), seed=0) in [((0, 2), (1, 3)), ((0, 3), (1, 2))]
    True
    """
    sizes = [len(group) for group in groups]
    learned = tuple(sorted(tuple(sorted(group)) for group in groups))
    if len(sizes) == 1 or max(sizes) == 1:
        raise UserError(f"Groups of sizes {sizes} have no other partition of the same sizes; random groups need one.")
    rng = np.random.default_rng(seed)
    while True:
        parts = np.split(rng.permutation(sum(sizes)), np.cumsum(sizes)[:-1])
        drawn = tuple(sorted(tuple(sorted(part.tolist())) for part in parts))
        if drawn != learned:
            return drawn


def report(
    similarity: Similarity,
    found: Partition,
    *,
    kind: str = "dot",
    stable: float | None = None,
    rule: Rule = DEFAULT_RULE,
) -> dict[str, Any]:
    """Return the content of grouping.json: groups by name, how they were found, and all matrices.

    Args:
      similarity: the snapshots.
      found: what `partition` returned for `similarity.matrix(kind)`.
      kind: of similarity.
      stable: result of `stability`.
      rule: as given to `partition`.
    """
    names = similarity.names

    def named(groups: Groups) -> list[list[str]]:
        return [[names[task] for task in group] for group in groups]

    epochs, course = similarity.per_epoch("dot")
    statistics = {
        "dot": similarity.matrix("dot"),
        "dot_std": similarity.std(),
        "count": similarity.count(),
        "cosine": similarity.matrix("cosine"),
        "split_half": similarity.matrix("split_half"),
        "conflict_rate": similarity.conflict_rate(),
    }
    return {
        "schema": SCHEMA,
        "tasks": list(names),
        "groups": named(found.groups),
        "similarity": kind,
        "rule": asdict(rule),
        "solver": found.solver,
        "score": found.score,
        "runner_up": named(found.runner_up) if found.runner_up else None,
        "runner_up_score": found.runner_up_score,
        "margin": found.margin,
        "ranking": [{"groups": named(groups), "score": score} for groups, score in found.ranking],
        "stability": stable,
        "snapshots": len(similarity),
        "warmup_steps": similarity.warmup_steps,
        "matrices": {name: matrix.tolist() for name, matrix in statistics.items()},
        "per_epoch": {"epochs": epochs, "dot": course.tolist()},
    }


def save(path: str | pathlib.Path, content: Mapping[str, Any]) -> None:
    """Write grouping.json."""
    write_whole(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def load_groups(path: str | pathlib.Path, task_names: Sequence[str]) -> Groups:
    """Read the groups of a grouping.json as task numbers in the order of `task_names`.

    Raises:
      UserError: the file is missing or broken, or was made for other tasks.
    """
    try:
        named = json.loads(pathlib.Path(path).read_text())["groups"]
        members = sorted(name for group in named for name in group)
    except OSError as error:
        raise UserError(
            f"Cannot read the groups file {path}: {error.strerror}; run the grouping stage first."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not a grouping.json; run the grouping stage again.") from None
    if members != sorted(task_names):
        raise UserError(
            f"{path} groups the tasks {', '.join(members)}, but the suite has {', '.join(task_names)}; "
            "run the grouping stage on this suite."
        )
    return tuple(sorted(tuple(sorted(list(task_names).index(name) for name in group)) for group in named))
