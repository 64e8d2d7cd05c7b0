"""Own data as a folder tree `root/<task>/<class>/*.jpg`; the class lists of tasks may differ."""

import os
import pathlib
from collections.abc import Sequence

from jax_promptmtl.data import fewshot
from jax_promptmtl.data.source import FileSource, Suite, Task
from jax_promptmtl.errors import UserError, pick

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
Tree = dict[str, dict[str, list[str]]]  # task -> class -> sorted paths relative to the root


def scan(root: str | os.PathLike) -> Tree:
    """List the images of all tasks and classes in sorted order; hidden entries and other files are passed over.

    Args:
      root: the folder of tasks.

    Returns:
      task -> class -> paths relative to the root, with forward slashes.

    Raises:
      UserError: there is no such folder, no task, a task without classes, or a class without images.
    """
    root = pathlib.Path(root).expanduser()
    if not root.is_dir():
        raise UserError(f"There is no data folder {str(root)!r}; give a folder of the form root/<task>/<class>/*.jpg.")
    tree: Tree = {}
    for task in _folders(root, "tasks"):
        tree[task.name] = {}
        for folder in _folders(task, "classes"):
            files = sorted(f.relative_to(root).as_posix() for f in folder.rglob("*") if _is_image(f))
            if not files:
                raise UserError(
                    f"Class {folder.name!r} of task {task.name!r} has no images in {str(folder)!r}; legal endings: "
                    f"{', '.join(SUFFIXES)}; add images or remove the folder."
                )
            tree[task.name][folder.name] = files
    return tree


def _folders(parent: pathlib.Path, what: str) -> list[pathlib.Path]:
    folders = sorted(f for f in parent.iterdir() if f.is_dir() and not f.name.startswith("."))
    if not folders:
        raise UserError(f"Folder {str(parent)!r} has no {what}; expected subfolders root/<task>/<class>/*.jpg.")
    return folders


def _is_image(file: pathlib.Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def build(
    *, root: str, shots: int = 12, seed: int = 0, reserve: int = 0, tasks: Sequence[str] = (), manifest: str = ""
) -> Suite:
    """Build a suite of a folder tree with a few-shot split that is drawn once and then kept.

    Args:
      root: the folder of tasks.
      shots: training images per class; the others are the test set.
      seed: draws the shots.
      reserve: images per class kept out of the test set, if more than `shots`, so that one test set serves all shots.
      tasks: which tasks, in this order; empty for all.
      manifest: the split's file, read if it exists, else written; empty for one beside the tasks.

    Returns:
      A suite of one task per chosen subfolder.

    Raises:
      UserError: see `scan`; or the manifest names a task, class or image that is not there.
    """
    tree = scan(root)
    tree = {pick(task, tree, "task"): tree[task] for task in (tasks or tree)}
    root = str(pathlib.Path(root).expanduser())
    path = pathlib.Path(manifest or f"{root}/split_shots{shots}_seed{seed}_reserve{reserve}.json")
    if not path.exists():
        everything = scan(root)  # the manifest covers all tasks, whichever this run wants
        split = fewshot.split(everything, shots=shots, seed=seed, reserve=reserve)
        try:
            fewshot.write_manifest(path, split, shots=shots, seed=seed)
        except OSError as error:
            raise UserError(
                f"Cannot write the split {str(path)!r} ({error.strerror}); set `manifest` elsewhere."
            ) from None
    split, sha256 = fewshot.read_manifest(path)
    _check(split, scan(root), path)
    return Suite("folder", tuple(_task(root, task, split, path) for task in tree), sha256)


def _check(split: fewshot.Split, tree: Tree, path: pathlib.Path) -> None:
    """Refuse a manifest that names what is not in the folder."""
    where = f"split {str(path)!r}; delete it to draw the split anew"
    for task, classes in split.items():
        pick(task, tree, f"task of the split {str(path)!r}")
        for class_name, halves in classes.items():
            pick(class_name, tree[task], f"class of task {task!r} of the split {str(path)!r}")
            missing = sorted({*halves["train"], *halves["test"]} - set(tree[task][class_name]))
            if missing:
                raise UserError(
                    f"Image {missing[0]!r} and {len(missing) - 1} others of the {where}, or restore the missing images."
                )


def _task(root: str, task: str, split: fewshot.Split, path: pathlib.Path) -> Task:
    """Make one task of its part of the split."""
    pick(task, split, f"task of the split {str(path)!r}")
    classes = sorted(split[task])
    halves = {}
    for half in ("train", "test"):
        pairs = [(name, label) for label, c in enumerate(classes) for name in split[task][c][half]]
        halves[half] = FileSource(root, tuple(name for name, _ in pairs), tuple(label for _, label in pairs))
    if not len(halves["test"]):
        raise UserError(f"Task {task!r} has no images left for the test; ask for fewer shots or add images.")
    return Task(task, tuple(name.replace("_", " ") for name in classes), halves["train"], halves["test"])
