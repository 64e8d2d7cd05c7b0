"""Office-Home (Venkateswara et al. 2017): 65 things of office and home in four domains, 15,588 images.

The layouts that users have: as distributed, `Art/ Clipart/ Product/ "Real World"/`, and Dassl's
`office_home/{art,clipart,product,real_world}/`; domains and classes in any spelling. The split's manifest holds the
distributed names whatever the spelling on disk, so that one manifest, and one hash, serves all layouts.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from jax_promptmtl.core.errors import UserError, some
from jax_promptmtl.data.contents import Tree, passed_over
from jax_promptmtl.data.images import STORED, Reading
from jax_promptmtl.data.listing import subfolders
from jax_promptmtl.data.source import Suite
from jax_promptmtl.data.suites import drawn, folder
from jax_promptmtl.data.suites.folder import MEGAPIXELS
from jax_promptmtl.data.suites.tree import class_images, refuse_empty

COUNTS = {"Art": 2427, "Clipart": 4365, "Product": 4439, "Real World": 4357}  # as published
NAMED = """
Alarm_Clock Backpack Batteries Bed Bike Bottle Bucket Calculator Calendar Candles Chair Clipboards Computer Couch
Curtains Desk_Lamp Drill Eraser Exit_Sign Fan File_Cabinet Flipflops Flowers Folder Fork Glasses Hammer Helmet
Kettle Keyboard Knives Lamp_Shade Laptop Marker Monitor Mop Mouse Mug Notebook Oven Pan Paper_Clip Pen Pencil
Postit_Notes Printer Push_Pin Radio Refrigerator Ruler Scissors Screwdriver Shelf Sink Sneakers Soda Speaker Spoon
TV Table Telephone ToothBrush Toys Trash_Can Webcam
"""
CLASSES = tuple(NAMED.split())
LAYOUT = "Art, Clipart, Product and 'Real World' in any spelling, each with <class>/*.jpg"


def build(
    *,
    root: str,
    shots: int = 6,
    seed: int = 0,
    reserve: int = 0,
    strict: bool = True,
    manifest: str = "",
    background: str = STORED.background,
    exif: bool = STORED.exif,
    megapixels: float = MEGAPIXELS,
) -> Suite:
    """Build the Office-Home suite.

    Args:
      root: the folder of the four domains, or the folder around it.
      shots: training images per class; 6 are the paper's 10 % (1,560 images), 12 its 20 %. The others test.
      seed: draws the shots.
      reserve: images per class kept out of the test set, if more than `shots`, so that one test set serves all shots.
      strict: whether every class must be there and the number of images must be the published one; False leaves out
        images that cannot be read, too.
      manifest: the split's file, read if it exists, else written; empty for one beside the domains.
      background, exif, megapixels: see `folder.build`; Dassl drops transparency and leaves pictures as they are stored.

    Returns:
      A suite of the tasks Art, Clipart, Product and Real World.

    Raises:
      UserError: a domain or class is missing, unknown or there twice; other counts; an empty file; a split that was
        edited or does not fit.
    """
    draw = {"shots": shots, "seed": seed, "reserve": reserve}
    reading = folder.reading(background, exif, megapixels)
    return suite(root, COUNTS, CLASSES, strict=strict, manifest=manifest, reading=reading, **draw)


def suite(
    root: str,
    counts: Mapping[str, int],
    classes: tuple[str, ...],
    *,
    strict: bool,
    reading: Reading = STORED,
    **draw: Any,
) -> Suite:
    """Build the suite of given domains with their numbers of images, and classes; see `build`."""
    domains = folder.locate(root, counts, "officehome", LAYOUT)
    home = next(iter(domains.values())).parent
    tree: Tree = {}
    paths: dict[str, str] = {}
    sizes: dict[str, int] = {}
    passed: list[str] = []
    for domain, place in domains.items():
        tree[domain] = {}
        for class_name, spot in class_folders(place, classes, strict).items():
            files = class_images(spot)
            passed += [f"{place.name}/{spot.name}/{file}" for file in files.passed]
            names = {f"{domain}/{class_name}/{file}": f"{place.name}/{spot.name}/{file}" for file in files.sizes}
            tree[domain][class_name] = list(names)
            paths |= names
            sizes |= dict(zip(names.values(), files.sizes.values(), strict=True))
    if strict:
        refuse_empty(sizes, home)
        check_counts(tree, counts, home)
    made = drawn.suite("office_home", drawn.Files(home, reading, paths), tree, strict=strict, **draw)
    return dataclasses.replace(made, notes=tuple(passed_over(passed)))


def class_folders(place: pathlib.Path, classes: tuple[str, ...], strict: bool) -> dict[str, pathlib.Path]:
    """Return {class: folder} of a domain in the order of the classes."""
    found = folder.spelled(place, classes)
    if strange := [f.name for f in subfolders(place) if f not in found.values()]:
        raise UserError(
            f"Folder {str(place)!r} holds {some(strange)}, which are no Office-Home classes; expected "
            f"{place.name}/<class>/*.jpg such as {place.name}/{classes[0]}/00001.jpg: rename, move or remove them."
        )
    missing = [name for name in classes if name not in found]
    if missing and (strict or not found):
        raise UserError(
            f"Folder {str(place)!r} lacks the classes {some(missing)}; unpack the archive again, or set "
            "suite.strict=False to go on with some classes."
        )
    return {name: found[name] for name in classes if name in found}


def check_counts(tree: Tree, counts: Mapping[str, int], home: pathlib.Path) -> None:
    """Refuse numbers of images that are not the published ones."""
    there = {domain: sum(map(len, tree[domain].values())) for domain in counts}
    wrong = [f"{d} has {there[d]:,} images instead of {count:,}" for d, count in counts.items() if there[d] != count]
    if wrong:
        raise UserError(
            f"Office-Home in {str(home)!r} is not the published one ({'; '.join(wrong)}): unpack the archive again, or "
            "set suite.strict=False to use it all the same."
        )
