"""MiniDomainNet (Zhou et al. 2021): 126 classes of DomainNet in four domains, 140,006 images at full size.

The layout is Dassl's: `domainnet/{clipart,painting,real,sketch}/<class>/*.jpg` beside
`domainnet/splits_mini/{domain}_{train,test}.txt`, whose lines are `clipart/<class>/<file>.jpg <label>`. The clipart
and painting images must come from DomainNet's cleaned archives.
"""

import pathlib
from typing import Any, NamedTuple

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.data.contents import Tree
from jax_promptmtl.data.images import STORED, Reading
from jax_promptmtl.data.listing import listing
from jax_promptmtl.data.source import Suite
from jax_promptmtl.data.suites import drawn, folder
from jax_promptmtl.data.suites.folder import MEGAPIXELS
from jax_promptmtl.data.suites.tree import refuse_empty

DOMAINS = ("clipart", "painting", "real", "sketch")
CLEANED = {"clipart": "groundtruth/clipart.zip", "painting": "groundtruth/painting.zip"}  # at DomainNet's home page
IMAGES, CLASSES = 140_006, 126  # as published
SPLITS = "splits_mini"
LAYOUT = f"domainnet/ with {', '.join(DOMAINS)} (<class>/*.jpg) and {SPLITS}/<domain>_train.txt, <domain>_test.txt"


class Row(NamedTuple):
    """One line of a split file."""

    name: str  # path as the file has it, which is also the manifest's name
    class_name: str
    label: int


def build(
    *,
    root: str,
    shots: int = 3,
    seed: int = 0,
    reserve: int = 0,
    pool: str = "union",
    strict: bool = True,
    manifest: str = "",
    background: str = STORED.background,
    exif: bool = STORED.exif,
    megapixels: float = MEGAPIXELS,
) -> Suite:
    """Build the MiniDomainNet suite.

    Args:
      root: the folder `domainnet`, or the folder around it.
      shots: training images per class; 3 are the paper's 1 % (1,512 images), 6 its 2 %.
      seed: draws the shots.
      reserve: images per class kept out of the test set, if more than `shots`; only where the pool is the union.
      pool: "union" draws from both split files of a domain and tests on the rest, as the paper's words suggest; "dassl"
        draws from the train file and tests on the test file.
      strict: whether every listed file must be there and the numbers of classes and images must be the published ones;
        False leaves out files that are missing, empty or cannot be read.
      manifest: the split's file, read if it exists, else written; empty for one beside the domains.
      background, exif, megapixels: see `folder.build`; Dassl drops transparency and leaves pictures as they are stored.

    Returns:
      A suite of the tasks clipart, painting, real and sketch; labels are those of the split files.

    Raises:
      UserError: a folder or split file is missing or malformed; other counts; a missing or empty image; a split that
        was edited or does not fit.
    """
    draw = {"shots": shots, "seed": seed, "reserve": reserve}
    reading = folder.reading(background, exif, megapixels)
    return suite(root, IMAGES, CLASSES, strict=strict, pool=pool, manifest=manifest, reading=reading, **draw)


def suite(
    root: str, images: int, classes: int, *, strict: bool, pool: str, reading: Reading = STORED, **draw: Any
) -> Suite:
    """Build the suite of given numbers of images and classes; see `build`."""
    pick(pool, ("union", "dassl"), "pool of suite 'mini_domainnet'")
    places = folder.locate(root, (*DOMAINS, SPLITS), "domainnet", LAYOUT)
    home = places[SPLITS].parent
    train, test = ({d: read(places[SPLITS] / f"{d}_{half}.txt", d) for d in DOMAINS} for half in ("train", "test"))
    rows = [row for half in (train, test) for domain in DOMAINS for row in half[domain]]
    names = class_names(rows)
    if strict and (len(rows), len(names)) != (images, classes):
        raise UserError(
            f"The split files in {str(places[SPLITS])!r} list {len(rows):,} images of {len(names)} classes instead of "
            f"{images:,} of {classes}; get Dassl's miniDomainNet split files again, or set suite.strict=False."
        )
    paths = {name: path for d in DOMAINS for name, path in find(places[d], train[d] + test[d], strict).items()}
    learn, held_out = (tree(half, names, paths) for half in (train, test))
    files, draw = drawn.Files(home, reading, paths), draw | {"strict": strict, "pool": pool}
    if pool == "dassl":
        return drawn.suite("mini_domainnet", files, learn, held_out=held_out, **draw)
    both = {d: {c: learn[d].get(c, []) + held_out[d].get(c, []) for c in names} for d in DOMAINS}
    both = {d: {c: members for c, members in listed.items() if members} for d, listed in both.items()}
    return drawn.suite("mini_domainnet", files, both, **draw)


def read(path: pathlib.Path, domain: str) -> list[Row]:
    """Read a split file of a domain: lines `domain/<class>/<file> <label>`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"Cannot read the split file {str(path)!r} ({error.strerror}); expected {LAYOUT}.") from None
    return [parse(line, domain, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]


def parse(line: str, domain: str, where: str) -> Row:
    """Read one line of a split file.

    >>> parse("real/sea_turtle/real_1.jpg 8", "real", "line 1")
    Row(name='real/sea_turtle/real_1.jpg', class_name='sea_turtle', label=8)
    """
    name, _, label = line.strip().rpartition(" ")
    parts = name.split("/")
    if len(parts) != 3 or parts[0] != domain or not label.isdecimal():
        raise UserError(f"{where} is {line!r}; a line must look like '{domain}/<class>/<file>.jpg <label>'.")
    return Row(name, parts[1], int(label))


def class_names(rows: list[Row]) -> list[str]:
    """Return the classes in the order of their labels, which all split files must agree on.

    >>> class_names([Row("real/zebra/1.jpg", "zebra", 0), Row("real/ant/1.jpg", "ant", 1)])
    ['zebra', 'ant']
    """
    label_of: dict[str, int] = {}
    name_of: dict[int, str] = {}
    for row in rows:
        label, name = label_of.setdefault(row.class_name, row.label), name_of.setdefault(row.label, row.class_name)
        if (label, name) != (row.label, row.class_name):
            raise UserError(
                f"Image {row.name!r} has the label {row.label} in the split files of MiniDomainNet, but elsewhere "
                f"{row.class_name!r} is {label} and {row.label} is {name!r}; get the split files again."
            )
    return sorted(label_of, key=label_of.__getitem__)


def find(place: pathlib.Path, rows: list[Row], strict: bool) -> dict[str, str]:
    """Return {name: path relative to the home} of the listed files of a domain that are there and not empty."""
    classes = [name for name in {row.class_name: 0 for row in rows} if (place / name).is_dir()]
    sizes = {f"{name}/{file}": size for name in classes for file, size in listing(place / name).sizes.items()}
    below = {row.name: row.name.split("/", 1)[1] for row in rows}
    missing = [name for name, path in below.items() if path not in sizes]
    empty = {path: 0 for path in below.values() if sizes.get(path) == 0}
    if strict:
        refuse_missing(missing, len(below), place)
        refuse_empty(empty, place)
    elif missing or empty:
        print(f"{place}: left out {len(missing):,} missing and {len(empty):,} empty files of the split.", flush=True)
    return {name: f"{place.name}/{path}" for name, path in below.items() if sizes.get(path)}


def refuse_missing(missing: list[str], listed: int, place: pathlib.Path) -> None:
    """Say which files are missing, and which archive has them."""
    if len(missing) == listed > 0:
        raise UserError(f"None of the {listed:,} listed files is in {str(place)!r}; expected {missing[0]!r} and so on.")
    cleaned = CLEANED.get(folder.squash(place.name))
    where = (
        f"DomainNet's cleaned archive {cleaned}, not {place.name}.zip" if cleaned else f"DomainNet's {place.name}.zip"
    )
    if missing:
        raise UserError(
            f"Of the split's {listed:,} files, {len(missing):,} are missing in {str(place)!r}, such as {missing[0]!r}; "
            f"unpack {where}, or set suite.strict=False to leave them out."
        )


def tree(rows: dict[str, list[Row]], names: list[str], paths: dict[str, str]) -> Tree:
    """Sort the files that are there by domain and class, the classes in the given order."""
    listed: Tree = {domain: {name: [] for name in names} for domain in rows}
    for domain, members in rows.items():
        for row in members:
            if row.name in paths:
                listed[domain][row.class_name].append(row.name)
    return {d: {c: found for c, found in classes.items() if found} for d, classes in listed.items()}
