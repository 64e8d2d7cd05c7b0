"""From listed picture files to a suite: a few-shot split that is drawn once and then kept."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from jax_promptmtl.core.errors import UserError, pick, some
from jax_promptmtl.data import fewshot
from jax_promptmtl.data.contents import Tree, Words, spoken
from jax_promptmtl.data.images import PLAIN, FileSource, Reading, decode
from jax_promptmtl.data.source import Suite, Task


@dataclass(frozen=True)
class Files:
    """What names stand for.

    Attributes:
      root: the folder that paths are relative to.
      reading: what decoding has to decide.
      paths: name -> path relative to the root, where the two differ.
      words: task -> class -> what texts call the class, where that is not its name.
    """

    root: pathlib.Path
    reading: Reading = PLAIN
    paths: Mapping[str, str] | None = None
    words: Words = field(default_factory=dict)

    def source(self, classes: Mapping[str, Mapping[str, list[str]]], half: str) -> FileSource:
        """Make one half of a task of its part of the split."""
        pairs = [(self.path(name), label) for label, halves in enumerate(classes.values()) for name in halves[half]]
        return FileSource(
            str(self.root), tuple(path for path, _ in pairs), tuple(label for _, label in pairs), self.reading
        )

    def path(self, name: str) -> str:
        """Return a name's path below the root."""
        return self.paths[name] if self.paths else name

    def task(self, name: str, classes: Mapping[str, Mapping[str, list[str]]]) -> Task:
        """Make a task of its part of the split."""
        words = self.words.get(name, {})
        texts = tuple(words.get(c) or spoken(c).replace("_", " ") for c in classes)
        return Task(spoken(name), texts, self.source(classes, "train"), self.source(classes, "test"))

    def broken(self, tree: Tree) -> list[str]:
        """Open every image of a tree and return the names of those that cannot be read."""

        def readable(name: str) -> bool:
            try:
                return decode(self.root / self.path(name), reading=self.reading).size > 0
            except UserError:
                return False

        names = [name for classes in tree.values() for members in classes.values() for name in members]
        with ThreadPoolExecutor() as pool:  # Pillow decodes without holding the interpreter
            return [name for name, fine in zip(names, pool.map(readable, names), strict=True) if not fine]


def suite(
    name: str,
    files: Files,
    tree: Tree,
    *,
    strict: bool = True,
    manifest: str,
    held_out: Tree | None = None,
    **draw: Any,
) -> Suite:
    """Build a suite of listed files with a few-shot split that is drawn once and then kept.

    Args:
      name: of the suite.
      files: where the names are, and how they are read.
      tree: task -> class -> names to draw from; labels follow the order of the classes.
      strict: False leaves out what cannot be read when the split is drawn; its manifest says which, and is another.
      manifest: the split's file, read if it exists, else written; empty for one in the root.
      held_out: a test set of its own; None tests on what the draw leaves.
      **draw: `shots`, `seed`, `reserve`, and other entries of the manifest that tell this split from another.

    Returns:
      A suite of one task per task of the tree.

    Raises:
      UserError: the manifest was edited, drawn otherwise, or names a task, class or image that is not there.
    """
    how = {key: draw[key] for key in ("shots", "seed", "reserve")}
    draw = how | draw | ({} if strict else {"strict": False})
    told = "_".join(f"{key}{value}" for key, value in draw.items())
    path = pathlib.Path(manifest or files.root / f"split_{told}.json")
    pool, tests = tree, held_out
    if not strict and not path.exists():
        draw["left_out"] = [name for part in (tree, held_out or {}) for name in files.broken(part)]
        pool, tests = without(tree, draw["left_out"]), held_out and without(held_out, draw["left_out"])
    drawn = fewshot.split(pool, held_out=tests, **how)
    if not path.exists():
        require_tests(drawn)
    if not path.exists() and held_out is None:
        draw["spare"] = beyond(pool, drawn)
    split, sha256 = fewshot.pin(path, lambda: drawn, **draw)
    _check(split, [tree, held_out or {}], path)
    tasks = []
    for task, classes in tree.items():
        pick(task, split, f"task of the split {str(path)!r}")
        tasks.append(files.task(task, {c: split[task][c] for c in classes if c in split[task]}))
    known, spare = fewshot.noted(path, "left_out") or (), fewshot.noted(path, "spare")
    words = {task: words for task, words in files.words.items() if words}
    identity = fewshot.digest([sha256, words]) if words else sha256
    made = Suite(name, tuple(tasks), identity, known, reading=files.reading)
    if held_out is not None or (spare is None and how["reserve"] > how["shots"]):  # cannot be told from what was spared
        return made
    return dataclasses.replace(made, unused=tuple(beyond(tree, split, {*known, *(spare or ())})))


def require_tests(split: fewshot.Split) -> None:
    """Refuse a split that leaves nothing to test, before it is written; single tasks may yet be cut away."""
    if any(halves["test"] for classes in split.values() for halves in classes.values()):
        return
    task, classes = next(iter(split.items()))
    most = max(len(halves["train"]) for halves in classes.values())
    raise UserError(
        f"Task {task!r} has no images left for the test, as no class has more than {most:,}; ask for fewer shots, or "
        "add images."
    )


def beyond(tree: Tree, split: fewshot.Split, others: Iterable[str] = ()) -> list[str]:
    """Return the names of a tree that are neither in a split nor among others."""
    halves = (half for classes in split.values() for pair in classes.values() for half in pair.values())
    known = {*others, *(name for half in halves for name in half)}
    return [name for classes in tree.values() for names in classes.values() for name in names if name not in known]


def without(tree: Tree, names: Iterable[str]) -> Tree:
    """Return a tree without some names; every class must keep one."""
    gone = set(names)
    rest = {task: {c: [n for n in classes[c] if n not in gone] for c in classes} for task, classes in tree.items()}
    for task, classes in rest.items():
        for class_name, members in classes.items():
            if tree[task][class_name] and not members:
                raise UserError(f"Class {class_name!r} of task {task!r} has no image that can be read; replace them.")
    return rest


def _check(split: fewshot.Split, trees: list[Tree], path: pathlib.Path) -> None:
    """Refuse a manifest that names what is not in the folder."""
    for task, classes in split.items():
        pick(task, trees[0], f"task of the split {str(path)!r}")
        for class_name, halves in classes.items():
            pick(class_name, trees[0][task], f"class of task {task!r} of the split {str(path)!r}")
            there = {name for tree in trees for name in tree.get(task, {}).get(class_name, ())}
            missing = sorted({*halves["train"], *halves["test"]} - there)
            if missing:
                raise UserError(
                    f"Images {some(missing)} of the split {str(path)!r} are not there; restore them, or delete the "
                    "split to draw it anew."
                )


def late(names: Sequence[str]) -> str:
    """Return in words which images came after the split was drawn.

    >>> late(["a", "b"])
    "2 images came after the split was drawn ('a', 'b'); delete the split's file to draw it anew with them"
    """
    what = "1 image" if len(names) == 1 else f"{len(names):,} images"
    return f"{what} came after the split was drawn ({some(names)}); delete the split's file to draw it anew with them"


def untested(suite: Suite) -> str:
    """Return in words which classes have no image to test; "" if all have."""
    missing = [
        f"{name} of {task.name}"
        for task in suite.tasks
        if isinstance(task.test, FileSource)
        for label, name in enumerate(task.class_names)
        if label not in set(task.test.labels)
    ]
    return f"no image tests {some(missing)}" if missing else ""


def fewer(suite: Suite, shots: int) -> str:
    """Return in words which classes train with fewer images than were asked for; "" if none does.

    >>> task = Task("t", ("cat", "dog"), FileSource("", ("a.png",), (1,)), FileSource("", (), ()))
    >>> fewer(Suite("s", (task,), ""), 1), fewer(Suite("s", (task,), ""), 0)
    ("fewer images than 1 train for 'cat of t (0)'", '')
    """
    short = [
        f"{name} of {task.name} ({count})"
        for task in suite.tasks
        if isinstance(task.train, FileSource)
        for label, name in enumerate(task.class_names)
        if (count := task.train.labels.count(label)) < shots
    ]
    return f"fewer images than {shots} train for {some(short)}" if short else ""
