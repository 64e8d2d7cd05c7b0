"""Videos of one's own for recognition: a folder per class, or a table of paths and labels.

  root/<class>/...    videos, or folders of frames, however deep below the class
  root is labels.csv  columns path, class and, if wanted, part; see `label_table`

Where no table says what tests, a share of every class does. It is drawn from the names and the seed, so new videos draw
it anew.
"""

import pathlib

import numpy as np

from jax_promptmtl.core.errors import UserError, some
from jax_promptmtl.data import fewshot, label_table
from jax_promptmtl.data.suites.folder import folder, subfolders
from jax_promptmtl.data.videos import video_file
from jax_promptmtl.data.videos.index import Example, VideoSet, require_examples

NAME, HOME = "own", "where your videos are"
Classes = dict[str, list[str]]  # class -> paths of its videos below the root


def read(*, root: str, held_out: float = 0.2, seed: int = 0) -> VideoSet:
    """Read the labels.

    Args:
      root: the folder of the classes; or a CSV file.
      held_out: share of every class's videos that tests, at least one; not read where a table has parts.
      seed: draws them.

    Returns:
      The set; files of videos are not looked at.

    Raises:
      UserError: there is no class, a class has too few videos, or what `label_table.read` says of a table.
    """
    place = pathlib.Path(root).expanduser()
    if place.is_file():
        train, test = read_table(place)
        place = place.parent
    else:
        train, test = scan(place), None
    if test is None:
        if not 0 < held_out < 1:
            raise UserError(f"data.held_out is {held_out}; give a share between 0 and 1, such as 0.2.")
        train, test = hold_out(train, held_out, seed)
    names = sorted(train)
    parts = {
        part: [
            Example(path, path, {"label": np.array(label, np.int32)})
            for label, name in enumerate(names)
            for path in classes.get(name, ())
        ]
        for part, classes in (("train", train), ("test", test))
    }
    return VideoSet(NAME, "recognition", place, tuple(names), require_examples(parts, NAME, HOME), {}, HOME)


def read_table(path: pathlib.Path) -> tuple[Classes, Classes | None]:
    """Return the classes of a table, to train on and, where it says so, to test on."""
    train, test = label_table.read(path, strict=False)
    if len(train) > 1:
        raise UserError(f"Table {str(path)!r} has the tasks {some(train)}; videos have one: give a table for each.")
    (task,) = train
    return train[task], None if test is None else test[task]


def scan(root: pathlib.Path) -> Classes:
    """Return the classes of a folder."""
    places = subfolders(folder(root, "root/<class>/*.mp4, or a table of labels in CSV"))
    found = {place.name: video_file.listing(place) for place in places}
    if not found:
        raise UserError(f"Folder {str(root)!r} has no classes; expected subfolders root/<class>/*.mp4.")
    return {name: [str(path.relative_to(root)) for path in paths] for name, paths in found.items()}


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
