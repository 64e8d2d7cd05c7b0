"""Own data: a folder tree `root/<task>/<class>/*.jpg`, or a table of paths and labels; class lists may differ."""

import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jax_promptmtl.core.errors import UserError, pick, some
from jax_promptmtl.data import fewshot, label_table
from jax_promptmtl.data.images import SUFFIXES, FileSource, decode, listing
from jax_promptmtl.data.source import Suite, Task

Tree = label_table.Tree  # task -> class -> paths relative to the root


def scan(root: str | os.PathLike, strict: bool = True) -> Tree:
    """List the images of all tasks and classes in sorted order; hidden entries and other files are passed over.

    Args:
      root: the folder of tasks.
      strict: whether an empty file is an error.

    Returns:
      task -> class -> paths relative to the root, with forward slashes.

    Raises:
      UserError: there is no such folder, no task, a task without classes, a class without images, or an empty file.
    """
    root = folder(root, "root/<task>/<class>/*.jpg, or a table of labels in CSV")
    sizes: dict[str, int] = {}
    tree: Tree = {}
    for task in _folders(root, "tasks"):
        tree[task.name] = {}
        for place in _folders(task, "classes"):
            files = {f"{task.name}/{place.name}/{file}": size for file, size in class_images(place).items()}
            tree[task.name][place.name] = list(files)
            sizes |= files
    if strict:
        refuse_empty(sizes, root)
    return tree


def folder(path: str | os.PathLike, layout: str) -> pathlib.Path:
    """Return the path of a folder that exists; `layout` is what the message says it should hold."""
    place = pathlib.Path(path).expanduser()
    if not place.is_dir():
        raise UserError(f"There is no data folder {str(place)!r}; give a folder of the form {layout}.")
    return place


def _folders(parent: pathlib.Path, what: str) -> list[pathlib.Path]:
    folders = subfolders(parent)
    if not folders:
        raise UserError(f"Folder {str(parent)!r} has no {what}; expected subfolders root/<task>/<class>/*.jpg.")
    return folders


def subfolders(parent: pathlib.Path) -> list[pathlib.Path]:
    """Return the folders in a folder, sorted, without the hidden ones."""
    return sorted(f for f in parent.iterdir() if f.is_dir() and not f.name.startswith("."))


def class_images(place: pathlib.Path) -> dict[str, int]:
    """Return the `listing` of a class's folder, which must not be empty."""
    files = listing(str(place))
    if not files:
        raise UserError(
            f"Class {place.name!r} of task {place.parent.name!r} has no images in {str(place)!r}; legal endings: "
            f"{', '.join(SUFFIXES)}; add images or remove the folder."
        )
    return files


def refuse_empty(sizes: Mapping[str, int], root: str | os.PathLike) -> None:
    """Name the files that have no content, before a run comes across them."""
    if empty := [name for name, size in sizes.items() if not size]:
        raise UserError(
            f"Files {some(empty)} in {str(root)!r} are empty (0 bytes) or broken links; restore or remove them."
        )


def late(names: Sequence[str]) -> str:
    """Return in words which images came after the split was drawn.

    >>> late(["a", "b"])
    "2 images came after the split was drawn ('a', 'b'); delete the split's file to draw it anew with them"
    """
    what = "1 image" if len(names) == 1 else f"{len(names):,} images"
    return f"{what} came after the split was drawn ({some(names)}); delete the split's file to draw it anew with them"


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


def squash(name: str) -> str:
    """Return a name without case, spaces and marks, so that all its spellings are one.

    >>> squash("Real World") == squash("real_world") == squash("RealWorld")
    True
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())


def spelled(parent: pathlib.Path, names: Iterable[str]) -> dict[str, pathlib.Path]:
    """Return {name: folder} of those names that a folder has in any spelling; twice the same is an error."""
    found: dict[str, pathlib.Path] = {}
    legal = {squash(name): name for name in names}
    for place in subfolders(parent):
        name = legal.get(squash(place.name))
        if name in found:
            raise UserError(
                f"Folders {found[name].name!r} and {place.name!r} in {str(parent)!r} are both {name!r}; remove one."
            )
        if name is not None:
            found[name] = place
    return found


def locate(root: str | os.PathLike, names: Iterable[str], inside: str, layout: str) -> dict[str, pathlib.Path]:
    """Find a data set's folders, in any spelling, in the root or in a folder of the root that bears its name.

    Args:
      root: what the user gave.
      names: the folders that must be there.
      inside: the squashed start of the data set's own name, such as "officehome".
      layout: what the message says should be there.

    Returns:
      {name: folder}.

    Raises:
      UserError: some folder is missing, or there twice.
    """
    root, names = folder(root, layout), list(names)
    homes = [root, *(place for place in subfolders(root) if squash(place.name).startswith(inside))]
    found = max((spelled(home, names) for home in homes), key=len)
    if missing := [name for name in names if name not in found]:
        place = next(iter(found.values())).parent if found else root
        raise UserError(f"Folder {str(place)!r} has no {some(missing)}; expected {layout}.")
    return {name: found[name] for name in names}


def build(
    *, root: str, shots: int = 12, seed: int = 0, reserve: int = 0, strict: bool = True, manifest: str = ""
) -> Suite:
    """Build a suite of a folder tree or a table with a few-shot split that is drawn once and then kept.

    Args:
      root: the folder of tasks; or a CSV file, see `label_table`.
      shots: training images per class; the others are the test set, where a table does not say which.
      seed: draws the shots.
      reserve: images per class kept out of the test set, if more than `shots`, so that one test set serves all shots.
      strict: False opens every image before the split is drawn, and leaves out those that cannot be read.
      manifest: the split's file, read if it exists, else written; empty for one beside the tasks or the table.

    Returns:
      A suite of one task per subfolder.

    Raises:
      UserError: see `scan` and `label_table.read`; or the manifest names a task, class or image that is not there.
    """
    home = pathlib.Path(root).expanduser()
    draw: dict[str, Any] = {"shots": shots, "seed": seed, "reserve": reserve}
    if home.is_file():
        tree, tests = label_table.read(home, strict=strict)
        draw |= {"table": home.stem}
        return suite("folder", home.parent, tree, strict=strict, manifest=manifest, held_out=tests, **draw)
    return suite("folder", home, scan(home, strict), strict=strict, manifest=manifest, **draw)


def suite(
    name: str,
    root: pathlib.Path,
    tree: Tree,
    *,
    strict: bool = True,
    manifest: str,
    held_out: Tree | None = None,
    paths: Mapping[str, str] | None = None,
    **draw: Any,
) -> Suite:
    """Build a suite of listed files with a few-shot split that is drawn once and then kept.

    Args:
      name: of the suite.
      root: the folder that the paths are relative to.
      tree: task -> class -> names to draw from; labels follow the order of the classes.
      strict: False leaves out what cannot be read when the split is drawn; its manifest says which, and is another.
      manifest: the split's file, read if it exists, else written; empty for one in the root.
      held_out: a test set of its own; None tests on what the draw leaves.
      paths: name -> path relative to the root, where the two differ.
      **draw: `shots`, `seed`, `reserve`, and other entries of the manifest that tell this split from another.

    Returns:
      A suite of one task per task of the tree.

    Raises:
      UserError: the manifest was edited, drawn otherwise, or names a task, class or image that is not there.
    """
    how = {key: draw[key] for key in ("shots", "seed", "reserve")}
    draw = how | draw | ({} if strict else {"strict": False})
    told = "_".join(f"{key}{value}" for key, value in draw.items())
    path = pathlib.Path(manifest or root / f"split_{told}.json")
    pool, tests = tree, held_out
    if not strict and not path.exists():
        draw["left_out"] = [name for part in (tree, held_out or {}) for name in broken(root, part, paths)]
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
        chosen = {c: split[task][c] for c in classes if c in split[task]}
        train, test = (_source(root, chosen, half, paths) for half in ("train", "test"))
        tasks.append(Task(task, tuple(c.replace("_", " ") for c in chosen), train, test))
    known, spare = fewshot.noted(path, "left_out") or (), fewshot.noted(path, "spare")
    if held_out is not None or (spare is None and how["reserve"] > how["shots"]):  # cannot be told from what was spared
        return Suite(name, tuple(tasks), sha256, known)
    return Suite(name, tuple(tasks), sha256, known, tuple(beyond(tree, split, {*known, *(spare or ())})))


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


def broken(root: pathlib.Path, tree: Tree, paths: Mapping[str, str] | None = None) -> list[str]:
    """Open every image of a tree and return the names of those that cannot be read."""

    def readable(name: str) -> bool:
        try:
            return decode(root / (paths[name] if paths else name)).size > 0
        except UserError:
            return False

    names = [name for classes in tree.values() for members in classes.values() for name in members]
    with ThreadPoolExecutor() as pool:  # Pillow decodes without holding the interpreter
        return [name for name, fine in zip(names, pool.map(readable, names), strict=True) if not fine]


def without(tree: Tree, names: Iterable[str]) -> Tree:
    """Return a tree without some names; every class must keep one."""
    gone = set(names)
    rest = {task: {c: [n for n in classes[c] if n not in gone] for c in classes} for task, classes in tree.items()}
    for task, classes in rest.items():
        for class_name, members in classes.items():
            if not members:
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


def _source(
    root: pathlib.Path, classes: Mapping[str, Mapping[str, list[str]]], half: str, paths: Mapping[str, str] | None
) -> FileSource:
    """Make one half of a task of its part of the split."""
    pairs = [(name, label) for label, halves in enumerate(classes.values()) for name in halves[half]]
    files = (paths[name] if paths else name for name, _ in pairs)
    return FileSource(str(root), tuple(files), tuple(label for _, label in pairs))
