"""Videos of one's own for recognition: a folder per class, a table of paths and labels, or lists of them.

  root/<class>/...       videos, or folders of frames, however deep below the class
  root is labels.csv     columns path, class and, if wanted, part; see `label_table`
  root is train.csv      or a folder with it and test.csv or val.csv in it: lists without a head; see `path_lists`

Where nothing says what tests, a share of every class does. It is drawn from the names and the seed, so new videos draw
it anew.
"""

import pathlib

import numpy as np

from jax_promptmtl.core.errors import UserError, some
from jax_promptmtl.data import fewshot, label_table
from jax_promptmtl.data.suites.folder import folder
from jax_promptmtl.data.videos import folders, path_lists
from jax_promptmtl.data.videos.index import Example, VideoSet, require_examples
from jax_promptmtl.data.videos.path_lists import Classes

NAME, HOME = "own", "where your videos are"


def read(*, root: str, held_out: float = 0.2, seed: int = 0) -> VideoSet:
    """Read the labels.

    Args:
      root: the folder of the classes, or of the lists; or a CSV file, or a list.
      held_out: share of every class's videos that tests, at least one; not read where tables or lists tell.
      seed: draws them.

    Returns:
      The set; files of videos are not looked at.

    Raises:
      UserError: there is no class, a class has too few videos, or what `label_table.read` says of a table.
    """
    place = pathlib.Path(root).expanduser()
    listed = place if place.is_file() else path_lists.lists_in(place) if place.is_dir() else None
    if listed:
        train, test, notes = read_lists(listed, paired=place.is_dir())
        place = listed.parent
    else:
        train, notes = scan(place)
        test = None
    if test is None:
        if not 0 < held_out < 1:
            raise UserError(f"data.held_out is {held_out}; give a share between 0 and 1, such as 0.2.")
        train, test = hold_out(train, held_out, seed)
    names = list(train)
    parts = {
        part: [
            Example(path, path, {"label": np.array(label, np.int32)})
            for label, name in enumerate(names)
            for path in classes.get(name, ())
        ]
        for part, classes in (("train", train), ("test", test))
    }
    whole = require_examples(parts, NAME, HOME)
    return VideoSet(NAME, "recognition", place, tuple(names), whole, {}, HOME, notes=notes)


def read_lists(path: pathlib.Path, *, paired: bool) -> tuple[Classes, Classes | None, tuple[str, ...]]:
    """Return the classes of a table or list, to train on and, where it or its partner says so, to test on, and notes.

    Args:
      path: the table or list.
      paired: whether a table with a head has a partner, too.
    """
    headless = path_lists.is_list(path)
    train, test = (path_lists.read(path), None) if headless else read_table(path)
    other = path_lists.partner(path) if test is None and (headless or paired) else None
    if other is None:
        return train, test, ()
    test = path_lists.read(other) if path_lists.is_list(other) else read_table(other)[0]
    if strange := [name for name in test if name not in train]:
        raise UserError(
            f"Classes {some(strange)} of {str(other)!r} have no video to train in {path.name!r}; give some."
        )
    return train, test, (f"{path.name!r} says what trains, {other.name!r} what tests",)


def read_table(path: pathlib.Path) -> tuple[Classes, Classes | None]:
    """Return the classes of a table, to train on and, where it says so, to test on."""
    train, test = label_table.read(path, strict=False)
    if len(train) > 1:
        raise UserError(f"Table {str(path)!r} has the tasks {some(train)}; videos have one: give a table for each.")
    (task,) = train
    return train[task], None if test is None else test[task]


def scan(root: pathlib.Path) -> tuple[Classes, tuple[str, ...]]:
    """Return the classes of a folder, and in words what is not read."""
    files, names = folders.scan(str(folder(root, "root/<class>/*.mp4, or a table of labels in CSV")))
    found = {name: folders.listing(root / name) for name in names}
    if not found:
        raise UserError(f"Folder {str(root)!r} has no classes; expected subfolders root/<class>/*.mp4.")
    if empty := [name for name, below in found.items() if not below.videos]:
        others = folders.spell(found[empty[0]].passed, root) or "their folders are empty"
        raise UserError(f"Classes {some(empty)} have no video in {str(root)!r}: {others}; add some, or remove them.")
    loose = [name for name in files if folders.has_ending(name, folders.VIDEOS)]
    notes = [f"{len(loose):,} videos lie in no folder of a class and are not read: {some(loose)}"] if loose else []
    passed = [str(root / name) for name in files if name not in loose]
    passed += [path for below in found.values() for path in below.passed]
    notes += [folders.spell(passed, root)] if passed else []
    classes = {name: [str(pathlib.Path(path).relative_to(root)) for path in found[name].videos] for name in found}
    return classes, tuple(notes)


def hold_out(classes: Classes, share: float, seed: int) -> tuple[Classes, Classes]:
    """Draw what trains and what tests of every class.

    >>> train, test = hold_out({"a": list("vwxyz")}, 0.4, 0)
    >>> len(train["a"]), len(test["a"]), sorted(train["a"] + test["a"])
    (3, 2, ['v', 'w', 'x', 'y', 'z'])
    """
    if few := [f"{name} ({len(paths)})" for name, paths in classes.items() if len(paths) < 2]:
        raise UserError(f"Classes need two videos, one to train and one to test; too few have {some(few)}.")
    queues = {name: fewshot.order(paths, seed=seed, task=NAME, class_name=name) for name, paths in classes.items()}
    count = {name: min(max(round(share * len(queue)), 1), len(queue) - 1) for name, queue in queues.items()}
    test = {name: sorted(queue[: count[name]]) for name, queue in queues.items()}
    return {name: sorted(queue[count[name] :]) for name, queue in queues.items()}, test
