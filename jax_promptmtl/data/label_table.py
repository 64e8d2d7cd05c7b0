"""Labels in a table: a CSV file with a line per image, of which `path` and `class` must be told, `task` and `part` may.

    path,task,class,part
    day/0001.jpg,day,cat,train
    night/17.png,night,dog,test

Paths are relative to the table's folder, or absolute. Without `task` all is one task, named like the file; without
`part` the few-shot draw decides what trains and what tests. Commas, semicolons and tabs may separate the columns.
"""

import csv
import io
import pathlib
from collections.abc import Iterator, Sequence

from jax_promptmtl.core.errors import UserError, pick

NEEDED = ("path", "class")
COLUMNS = ("path", "task", "class", "part")
PARTS = ("train", "test")
SEPARATORS = (",", ";", "\t")
Tree = dict[str, dict[str, list[str]]]  # task -> class -> paths


def read(file: pathlib.Path, *, strict: bool = True) -> tuple[Tree, Tree | None]:
    """Return the images to train on, or to draw from, and those to test on; `None` for the latter without `part`.

    Both have tasks, classes and paths in sorted order.

    Args:
      file: the table.
      strict: whether an image that is missing or empty is an error.

    Raises:
      UserError: the file cannot be read, a column is missing, a cell is empty, or an image is named twice in a task.
    """
    halves: dict[str, Tree] = {part: {} for part in PARTS}
    seen: dict[tuple[str, str], int] = {}
    told = False
    for line, row in rows(file):
        task, told = row.get("task", file.stem), "part" in row
        if (first := seen.setdefault((task, row["path"]), line)) != line:
            raise UserError(
                f"Line {line} of {str(file)!r} has the image {row['path']!r} of line {first} again; remove one of them."
            )
        part = pick(row.get("part", "train"), PARTS, f"part in line {line} of {str(file)!r}")
        halves[part].setdefault(task, {}).setdefault(row["class"], []).append(row["path"])
    if not seen:
        raise UserError(f"Table {str(file)!r} has no line below its head; give one per image.")
    if strict:
        require_images({line: path for (_, path), line in seen.items()}, file)
    if told:
        require_parts(halves, file)
    train, test = (ordered(halves[part]) for part in PARTS)
    return train, test if told else None


def rows(file: pathlib.Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of every line below the head and its cells of the known columns, none of them empty."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the table {str(file)!r} ({error}); save it as CSV in UTF-8.") from None
    head = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(SEPARATORS, key=head.count), strict=True)
    names = [name.strip() for name in reader.fieldnames or ()]
    require_columns(names, file)
    reader.fieldnames = names
    try:
        for row in reader:
            cells = {name: (row[name] or "").strip() for name in COLUMNS if name in names}
            if empty := [name for name, cell in cells.items() if not cell]:
                raise UserError(f"Line {reader.line_num} of {str(file)!r} has no {empty[0]!r}; fill the cell.")
            yield reader.line_num, cells
    except csv.Error as error:
        raise UserError(f"Line {reader.line_num} of {str(file)!r} is not CSV ({error}); correct it.") from None


def require_columns(names: Sequence[str], file: pathlib.Path) -> None:
    """Refuse a table without the columns that it needs."""
    if missing := [name for name in NEEDED if name not in names]:
        raise UserError(
            f"Table {str(file)!r} has no column {missing[0]!r} but {', '.join(map(repr, names)) or 'nothing'}; its "
            f"first line names the columns: {', '.join(COLUMNS)}, the second and the last if wanted."
        )


def require_images(paths: dict[int, str], file: pathlib.Path) -> None:
    """Refuse a table that names images, by line, that are not there or empty."""
    places = {line: file.parent / path for line, path in paths.items()}
    if gone := [line for line, place in places.items() if not place.is_file() or not place.stat().st_size]:
        others = f", and {len(gone) - 1:,} other lines do likewise" if len(gone) > 1 else ""
        raise UserError(
            f"Line {gone[0]} of {str(file)!r} names {paths[gone[0]]!r}, which is not there or empty{others}; paths are "
            "relative to the table's folder."
        )


def require_parts(halves: dict[str, Tree], file: pathlib.Path) -> None:
    """Refuse a table whose test images have a class that no image trains."""
    for task, classes in halves["test"].items():
        for name in classes:
            if name not in halves["train"].get(task, {}):
                raise UserError(
                    f"Class {name!r} of task {task!r} has images to test and none to train in {str(file)!r}; give some."
                )
    for task in halves["train"]:
        if task not in halves["test"]:
            raise UserError(f"Task {task!r} has no image to test in {str(file)!r}; give some.")


def ordered(tree: Tree) -> Tree:
    """Return a tree with everything sorted."""
    return {task: {name: sorted(tree[task][name]) for name in sorted(tree[task])} for task in sorted(tree)}
