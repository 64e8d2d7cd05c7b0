"""Nested few-shot splits and the manifest that pins them: 1 shot is in 3 shots, 3 in 6, 6 in 12, 12 in 24.

Dassl's `generate_fewshot_dataset` draws from the global generator over unsorted directory listings, so one seed gives
different shots on different file systems. Here names are sorted and every class has a generator of its own.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jax_promptmtl.errors import UserError

VERSION = 1
Split = dict[str, dict[str, dict[str, list[str]]]]  # task -> class -> {"train": names, "test": names}


def generator(*key: Any) -> np.random.Generator:
    """Return a generator that depends on the key alone: not on the platform, nor on the order of calls.

    >>> int(generator(0, "line", "car").integers(1000)) == int(generator(0, "line", "car").integers(1000))
    True
    """
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def order(
    names: Sequence[str], *, seed: int, task: str, class_name: str, groups: Mapping[str, str] | None = None
) -> list[str]:
    """Shuffle the names of one class; the k shots are the first k, hence nested.

    Args:
      names: the class's examples; their order does not matter.
      seed, task, class_name: what the shuffle depends on.
      groups: {name: group}; then groups take turns, so that few shots show many groups.

    Returns:
      All names in the order in which shots take them.

    >>> order("abcd", seed=0, task="t", class_name="x") == order("dcba", seed=0, task="t", class_name="x")
    True
    """
    rng = generator(seed, task, class_name)
    names = sorted(names)
    shuffled = [names[i] for i in rng.permutation(len(names))]
    if groups is None:
        return shuffled
    seen: dict[str, int] = {}
    turn = {}
    for name in shuffled:
        turn[name] = seen[groups[name]] = seen.get(groups[name], -1) + 1
    return sorted(shuffled, key=turn.__getitem__)  # stable: the shuffle decides within a round


def split(names: Mapping[str, Mapping[str, Sequence[str]]], *, shots: int, seed: int, reserve: int = 0) -> Split:
    """Cut every class into `shots` training names and the rest for testing; a class with fewer gives all to training.

    Args:
      names: task -> class -> names.
      shots: training examples per class.
      seed: draws the shots.
      reserve: names per class kept out of the test half, if more than `shots`, so that one test set serves all shots.

    Returns:
      task -> class -> {"train": names, "test": sorted names}.

    >>> split({"t": {"x": ["a", "b", "c"]}}, shots=5, seed=0)["t"]["x"]["test"]
    []
    """
    result: Split = {}
    for task, classes in names.items():
        result[task] = {}
        for class_name, members in classes.items():
            queue = order(members, seed=seed, task=task, class_name=class_name)
            test = sorted(queue[max(shots, reserve) :])
            result[task][class_name] = {"train": queue[:shots], "test": test}
    return result


def digest(content: Any) -> str:
    """Return the sha256 of JSON content in canonical form, so that key order and spacing do not matter.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_manifest(path: str | os.PathLike, tasks: Split, *, shots: int, seed: int) -> str:
    """Write a split with its hash, atomically.

    Args:
      path: the JSON file.
      tasks: see `split`; names are relative paths, never bare numbers.
      shots, seed: how it was drawn, for the reader.

    Returns:
      The sha256 of the tasks.
    """
    sha256 = digest(tasks)
    manifest = {"version": VERSION, "shots": shots, "seed": seed, "sha256": sha256, "tasks": tasks}
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    fresh.write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
    fresh.replace(path)
    return sha256


def read_manifest(path: str | os.PathLike) -> tuple[Split, str]:
    """Read a split and check its hash.

    Args:
      path: a file of `write_manifest`.

    Returns:
      (tasks, sha256).

    Raises:
      UserError: unreadable, of another version, or changed since it was written.
    """
    try:
        manifest = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        version, sha256, tasks = manifest["version"], manifest["sha256"], manifest["tasks"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"Cannot read the split manifest {str(path)!r} ({type(error).__name__}: {error}); delete it to draw the "
            "split anew."
        ) from None
    if version != VERSION:
        raise UserError(f"Split manifest {str(path)!r} has version {version}; legal: {VERSION}; draw the split anew.")
    if digest(tasks) != sha256:
        raise UserError(
            f"Split manifest {str(path)!r} does not match its sha256 {sha256[:12]}: it was edited; restore it, or "
            "delete it to draw the split anew."
        )
    return tasks, sha256
