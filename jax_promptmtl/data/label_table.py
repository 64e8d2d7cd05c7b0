"""Labels in a table: a CSV file with a line per image, of which `path` and `class` must be told, the others may.

    path,task,class,part,name
    day/0001.jpg,day,cat,train,domestic cat
    night\\17.png,night,dog,test,dog

Paths are relative to the table's folder, or absolute. Without `task` all is one task, named like the file; without
`part` the few-shot draw decides what trains and what tests; `name` is what texts call the class, where that is not its
name. Commas, semicolons and tabs may separate the columns.
"""

import csv
import io
import pathlib
from collections.abc import Iterator, Sequence

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.data.contents import PARTS, Contents, Tree

NEEDED = ("path", "class")
COLUMNS = ("path", "task", "class", "part", "name")
SEPARATORS = (",", ";", "\t")
Line = tuple[int, dict[str, str]]


def read(file: pathlib.Path, *, strict: bool = True) -> tuple[Tree, Tree | None]:
    """Return what to train on, or to draw from, and what to test on; `None` for the latter without `part`."""
    return contents(file, strict=strict).split("test", str(file))


def contents(file: pathlib.Path, *, strict: bool = True) -> Contents:
    """Return what a table holds.

    Args:
      file: the table.
      strict: whether an image that is missing or empty is an error.

    Raises:
      UserError: the file cannot be read, a column is missing, a line has more or fewer cells than the head, a cell is
        empty, an image is named twice in a task, or a class has two names.
    """
    found, seen = Contents(), dict[tuple[str, str], int]()
    for line, row in rows(file):
        task, path = row.get("task", file.stem), forward(row["path"], file.parent)
        if (first := seen.setdefault((task, path), line)) != line:
            raise UserError(
                f"Line {line} of {str(file)!r} has the image {path!r} of line {first} again; remove one of them."
            )
        found.told = "part" in row
        part = row.get("part", "train").lower()
        found.add(PARTS[pick(part, PARTS, f"part in line {line} of {str(file)!r}")], task, row["class"], [path])
        words = found.words.setdefault(task, {})
        if "name" in row and words.setdefault(row["class"], row["name"]) != row["name"]:
            raise UserError(
                f"Line {line} of {str(file)!r} calls the class {row['class']!r} {row['name']!r}, an earlier one "
                f"{words[row['class']]!r}; give it one name."
            )
    if not seen:
        raise UserError(f"Table {str(file)!r} has no line below its head; give one per image.")
    if strict:
        require_images({line: path for (_, path), line in seen.items()}, file)
    return found


def forward(path: str, home: pathlib.Path) -> str:
    """Return a path with forward slashes, unless a file has a backslash in its name."""
    return path if "\\" not in path or (home / path).is_file() else path.replace("\\", "/")


def rows(file: pathlib.Path, needed: Sequence[str] = NEEDED) -> Iterator[Line]:
    """Yield the number of every line below the head and its cells of the known columns, none of them empty."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the table {str(file)!r} ({error}); save it as CSV in UTF-8.") from None
    head = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(SEPARATORS, key=head.count), strict=True)
    try:
        names = [name.strip() for name in next(reader, ())]
        require_columns(names, file, needed)
        for cells in filter(None, reader):
            yield reader.line_num, known(names, cells, f"Line {reader.line_num} of {str(file)!r}")
    except csv.Error as error:
        raise UserError(f"Line {reader.line_num} of {str(file)!r} is not CSV ({error}); correct it.") from None


def known(names: Sequence[str], cells: Sequence[str], line: str) -> dict[str, str]:
    """Return the cells of the known columns; `line` is what a message calls them."""
    if len(cells) > len(names):
        raise UserError(
            f"{line} has {len(cells)} cells for {len(names)} columns; put quotes around a cell that has the separator "
            "in it."
        )
    row = {name: cell.strip() for name, cell in zip(names, cells, strict=False) if name in COLUMNS}
    if empty := [name for name in COLUMNS if name in names and not row.get(name)]:
        raise UserError(f"{line} has no {empty[0]!r}; fill the cell.")
    if len(cells) < len(names):
        raise UserError(f"{line} has {len(cells)} cells for {len(names)} columns; give one for each column.")
    return row


def require_columns(names: Sequence[str], file: pathlib.Path, needed: Sequence[str]) -> None:
    """Refuse a table without the columns that it needs, or with one of them twice."""
    if missing := [name for name in needed if name not in names]:
        raise UserError(
            f"Table {str(file)!r} has no column {missing[0]!r} but {', '.join(map(repr, names)) or 'nothing'}; its "
            f"first line names the columns: {', '.join(COLUMNS)}, of which {' and '.join(needed)} must be there."
        )
    if twice := [name for name in COLUMNS if names.count(name) > 1]:
        raise UserError(f"Table {str(file)!r} has the column {twice[0]!r} twice; rename one.")


def require_images(paths: dict[int, str], file: pathlib.Path) -> None:
    """Refuse a table that names images, by line, that are not there or empty."""
    places = {line: file.parent / path for line, path in paths.items()}
    if gone := [line for line, place in places.items() if not there(place)]:
        others = f", and {len(gone) - 1:,} other lines do likewise" if len(gone) > 1 else ""
        raise UserError(
            f"Line {gone[0]} of {str(file)!r} names {paths[gone[0]]!r}, which is not there or empty{others}; paths are "
            "relative to the table's folder."
        )


def there(place: pathlib.Path) -> bool:
    """Return whether a path is a file with content."""
    try:
        return place.is_file() and place.stat().st_size > 0
    except (OSError, ValueError):  # a link in a circle, a name that is too long, a zero byte
        return False
