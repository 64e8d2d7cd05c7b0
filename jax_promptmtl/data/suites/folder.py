"""Own data: a folder tree such as `root/<task>/<class>/*.jpg`, or a table of paths and labels."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable
from typing import Any

from jax_promptmtl.core.errors import UserError, pick, some
from jax_promptmtl.data import label_table
from jax_promptmtl.data.contents import EVALUATED, speechless
from jax_promptmtl.data.images import MOST, Reading
from jax_promptmtl.data.listing import subfolders
from jax_promptmtl.data.source import Suite
from jax_promptmtl.data.suites import drawn, tree

MEGA = 1_000_000
MEGAPIXELS = MOST / MEGA


def folder(path: str | os.PathLike, layout: str) -> pathlib.Path:
    """Return the path of a folder that exists; `layout` is what the message says it should hold."""
    place = pathlib.Path(path).expanduser()
    if not place.is_dir():
        raise UserError(f"There is no data folder {str(place)!r}; give a folder of the form {layout}.")
    return place


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


def reading(background: str, exif: bool, megapixels: float) -> Reading:
    """Return what decoding has to decide, of a suite's options."""
    if not megapixels > 0:
        raise UserError(f"Option 'megapixels' is {megapixels}; it must be positive.")
    return Reading(background, exif, round(megapixels * MEGA))


def build(
    *,
    root: str,
    shots: int = 12,
    seed: int = 0,
    reserve: int = 0,
    strict: bool = True,
    manifest: str = "",
    evaluate_on: str = "test",
    layout: str = "",
    background: str = "white",
    exif: bool = True,
    megapixels: float = MEGAPIXELS,
) -> Suite:
    """Build a suite of a folder tree or a table with a few-shot split that is drawn once and then kept.

    Args:
      root: the uppermost folder; or a CSV file, see `label_table`.
      shots: training images per class; the others are the test set, where folders or a table do not say which.
      seed: draws the shots.
      reserve: images per class kept out of the test set, if more than `shots`, so that one test set serves all shots.
      strict: False opens every image before the split is drawn, and leaves out those that cannot be read.
      manifest: the split's file, read if it exists, else written; empty for one beside the tasks or the table.
      evaluate_on: "test", or "tune" for the images of folders or lines called val, for choosing hyper-parameters.
      layout: what the levels of folders are, such as "task/part/class"; empty finds out, see `tree.recognise`.
      background: colour below transparent pictures; "none" drops their transparency.
      exif: whether pictures are turned as their EXIF orientation says.
      megapixels: most of an image.

    Returns:
      A suite of one task per subfolder, or as the tree or table says.

    Raises:
      UserError: see `tree.read` and `label_table.contents`; or the manifest names a task, class or image that is gone.
    """
    pick(evaluate_on, EVALUATED, "evaluate_on")
    how = reading(background, exif, megapixels)
    home = pathlib.Path(root).expanduser()
    draw: dict[str, Any] = {"shots": shots, "seed": seed, "reserve": reserve}
    if home.is_file():
        found, draw = label_table.contents(home, strict=strict), draw | {"table": home.stem}
    else:
        home = folder(home, "root/<task>/<class>/*.jpg, or a table of labels in CSV")
        found = tree.read(home, layout=layout, strict=strict)
    if layout:
        draw |= {"layout": layout.replace("/", "-").replace("*", "any")}
    if evaluate_on != "test":
        draw |= {"evaluate_on": evaluate_on}
    pool, tests = found.split(evaluate_on, str(root))
    files = drawn.Files(home.parent if home.is_file() else home, how, words=found.words)
    made = drawn.suite("folder", files, pool, strict=strict, manifest=manifest, held_out=tests, **draw)
    notes = (*found.notes, *filter(None, [speechless(found.classes(), found.words)]))
    return dataclasses.replace(made, notes=notes)
