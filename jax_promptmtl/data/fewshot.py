"""Nested few-shot splits and the manifest that pins them: 1 shot is in 3 shots, 3 in 6, 6 in 12, 12 in 24.

Dassl's `generate_fewshot_dataset` draws from the global generator over unsorted directory listings, so one seed gives
different shots on different file systems. Here names are sorted and every class has a generator of its own.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.files import write_whole

VERSION = 1
Names = Mapping[str, Mapping[str, Sequence[str]]]  # task -> class -> names
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


def split(names: Names, *, shots: int, seed: int, reserve: int = 0, held_out: Names | None = None) -> Split:
    """Cut every class into `shots` training names and the rest for testing; a class with fewer gives all to training.

    Args:
      names: task -> class -> names.
      shots: training examples per class.
      seed: draws the shots.
      reserve: names per class kept out of the test half, if more than `shots`, so that one test set serves all shots.
      held_out: a test set of its own, task -> class -> names; then what is left of `names` is not used.

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
            rest = queue[max(shots, reserve) :] if held_out is None else held_out[task].get(class_name, ())
            result[task][class_name] = {"train": queue[:shots], "test": sorted(rest)}
    return result


def digest(content: Any) -> str:
    """Return the sha256 of JSON content in canonical form, so that key order and spacing do not matter.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_manifest(path: str | os.PathLike[str], tasks: Split, *, shots: int, seed: int, **about: Any) -> str:
    """Write a split with its hash, atomically.

    Args:
      path: the JSON file.
      tasks: see `split`; names are relative paths, never bare numbers.
      shots, seed, **about: how it was drawn; see `pin`.

    Returns:
      The sha256 of the tasks.
    """
    sha256 = digest(tasks)
    manifest = {"version": VERSION, "shots": shots, "seed": seed, **about, "sha256": sha256, "tasks": tasks}
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text_of(manifest))
    return sha256


def text_of(manifest: Mapping[str, Any]) -> str:
    """Return JSON that UTF-8 can have; names that it cannot, as file systems may have them, are escaped."""
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return json.dumps(manifest, indent=1)


def read_manifest(path: str | os.PathLike[str], **about: Any) -> tuple[Split, str]:
    """Read a split, check its hash, and check that it is the one that was asked for.

    Args:
      path: a file of `write_manifest`.
      **about: how the split should have been drawn, such as shots=6; what the manifest does not tell is not checked.

    Returns:
      (tasks, sha256).

    Raises:
      UserError: unreadable, of another version, changed since it was written, or drawn otherwise.
    """
    try:
        manifest = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        version, sha256, tasks = manifest["version"], manifest["sha256"], manifest["tasks"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"Cannot read the split manifest {str(path)!r} ({type(error).__name__}: {error}); give the path of one, or "
            "of a file that is not there to have one written."
        ) from None
    if version != VERSION:
        raise UserError(f"Split manifest {str(path)!r} has version {version}; legal: {VERSION}; draw the split anew.")
    if digest(tasks) != sha256:
        raise UserError(
            f"Split manifest {str(path)!r} does not match its sha256 {sha256[:12]}: it was edited; restore it, or "
            "delete it to draw the split anew."
        )
    for key, wanted in about.items():
        if manifest.get(key, wanted) != wanted:
            raise UserError(
                f"Split manifest {str(path)!r} has {key}={manifest[key]!r}, but the config asks for {key}={wanted!r}; "
                "change the config, or give another manifest."
            )
    return tasks, sha256


def noted(path: str | os.PathLike[str], key: str) -> tuple[str, ...] | None:
    """Return names that a manifest has beside its split, None where it has no such list.

    Args:
      path: the manifest.
      key: "left_out", what could not be read when the split was drawn; "spare", what the draw saw and did not take.
    """
    names = json.loads(pathlib.Path(path).read_text(encoding="utf-8")).get(key)
    return None if names is None else tuple(names)


def pin(path: str | os.PathLike[str], draw: Callable[[], Split], **about: Any) -> tuple[Split, str]:
    """Read the split of a manifest; where there is none yet, draw it and write it first.

    Args:
      path: the manifest; empty keeps none and draws every time.
      draw: makes the split.
      **about: `shots`, `seed` and what else the draw depends on; an older manifest must agree.

    Returns:
      (tasks, sha256); see `read_manifest`.

    Raises:
      UserError: see `read_manifest`; or the manifest cannot be written.
    """
    if not path:
        split = draw()
        return split, digest(split)
    if not pathlib.Path(path).exists():
        try:
            write_manifest(path, draw(), **about)
        except OSError as error:
            raise UserError(
                f"Cannot write the split {str(path)!r} ({error.strerror}); set `manifest` elsewhere."
            ) from None
    return read_manifest(path, **about)
