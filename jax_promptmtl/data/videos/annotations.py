"""Reading annotation files: JSON against the types that a reader needs, and text line by line.

What has another type than it should is refused with the file and the place in it, before anything is made of it.
"""

import difflib
import math
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.suites.folder import some

T = TypeVar("T")
LARGEST = 8 * 2**30  # bytes of a file; no official one comes near it
LONGEST = 255  # bytes of a name
SHOWN = 80  # characters of a wrong line or name
WHOLE = re.compile(r"\d+", re.ASCII)
REAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


class Record(msgspec.Struct):
    """What a reader needs of a JSON object; other entries are passed over."""


def locate(root: str, choices: Iterable[str], layout: str, home: str) -> pathlib.Path:
    """Return the first of several places below the root that exists.

    Raises:
      UserError: the root is missing, or none of them is there; the message says whose page has the files.
    """
    base, names = pathlib.Path(root).expanduser(), list(choices)
    if not root or not base.is_dir():
        raise UserError(f"There is no data folder {root!r}; give one with {layout}, from {home}.")
    for name in names:
        if (base / name).exists():
            return base / name
    raise UserError(f"Folder {str(base)!r} has no {' or '.join(names)}; expected {layout}, from {home}.")


def read_bytes(path: pathlib.Path) -> bytes:
    """Return the content of an annotation file, without the mark that some editors begin UTF-8 with."""
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"The annotations {str(path)!r} are no file; get the file again.")
        if path.stat().st_size > LARGEST:
            raise UserError(f"The annotations {str(path)!r} have more than {LARGEST:,} bytes; get the file again.")
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"Cannot read the annotations {str(path)!r} ({reason}); get the file again.") from None


# --- JSON ---


def read_json(path: pathlib.Path, kind: type[T]) -> T:
    """Return the content of a JSON file, which must have the types of `kind`."""
    return parse(read_bytes(path), kind, path)


def read_table(path: pathlib.Path, kind: Any) -> dict[str, Any]:
    """Return a JSON object whose values all must have the types of `kind`."""
    return parse_table(read_json(path, dict[str, msgspec.Raw]), kind, path)


def parse_table(table: Mapping[str, msgspec.Raw], kind: type[T], path: pathlib.Path, within: str = "") -> dict[str, T]:
    """Return the values of a JSON object in their types; `within` is where it stands in the file."""
    return {name: parse(value, kind, path, f"{within}[{name!r}]") for name, value in table.items()}


def parse(text: bytes | msgspec.Raw, kind: Any, path: pathlib.Path, within: str = "") -> Any:
    """Return JSON in the types of `kind`.

    Args:
      text: all of a file, or one value of it.
      kind: the types.
      path: the file, for messages.
      within: where the value stands in the file.

    Raises:
      UserError: no JSON, or a value of another type; the message says where.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        reason = of_type(str(error), within)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = f"it is no JSON: {of_syntax(str(error), bytes(text))}"
    except RecursionError:
        reason = "it is nested too deeply"
    raise UserError(f"Cannot use the annotations {str(path)!r}: {reason}; correct it, or get the file again.")


def of_type(message: str, within: str = "") -> str:
    """Return in words what msgspec says of a value.

    >>> of_type("Expected `array`, got `null` - at `$.annotations[3].bbox`")
    'annotations[3].bbox: expected array, got null'
    >>> of_type("Object missing required field `bbox` - at `$[0]`"), of_type("Expected `array`, got `int`", "['a']")
    ("[0]: lacks 'bbox'", "['a']: expected array, got int")
    """
    what, _, place = message.partition(" - at `$")
    where = (within + place.rstrip("`")).lstrip(".") or "the file"
    if lacks := re.fullmatch(r"Object missing required field `(.*)`", what):
        return f"{where}: lacks {lacks[1]!r}"
    return f"{where}: {what[:1].lower()}{what[1:].replace('`', '')}"


def of_syntax(message: str, text: bytes) -> str:
    """Return in words where JSON is none.

    >>> of_syntax("JSON is malformed: invalid character (byte 6)", b'[1,\\n  NaN]')
    'invalid character in line 2, column 3'
    """
    found = re.fullmatch(r"(?:JSON is malformed: )?(.*) \(byte (\d+)\)", message)
    if not found:
        return message[:1].lower() + message[1:]
    before = text[: int(found[2])]
    line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
    return f"{found[1]} in line {line:,}, column {column:,}"


# --- text ---


def read_lines(path: pathlib.Path) -> list[str]:
    """Return the lines of a text file that are not blank, without space around them."""
    return list(numbered_lines(path).values())


def numbered_lines(path: pathlib.Path) -> dict[int, str]:
    """Return {number from 1: line} of the lines that are not blank, without space around them."""
    try:
        text = read_bytes(path).decode()
    except UnicodeDecodeError:
        raise UserError(f"Cannot read the annotations {str(path)!r} (no UTF-8 text); get the file again.") from None
    lines = re.split(r"\r\n|\r|\n", text)
    return {number: line.strip() for number, line in enumerate(lines, 1) if line.strip()}


def rows_of(path: pathlib.Path, parse: Callable[[str], T], form: str) -> list[T]:
    """Parse every line of a file; `form` is what the message says that a line must look like."""
    rows = []
    for number, line in numbered_lines(path).items():
        try:
            rows.append(parse(line))
        except (ValueError, IndexError, KeyError):
            raise UserError(
                f"Line {number} of {str(path)!r} is {line[:SHOWN]!r}; a line must look like {form!r}."
            ) from None
    return rows


def whole(text: str) -> int:
    """Return a number of digits.

    >>> whole("07")
    7
    """
    if not WHOLE.fullmatch(text) or len(text) > 18:
        raise ValueError(f"{text[:20]!r} is no whole number")
    return int(text)


def real(text: str) -> float:
    """Return a finite number.

    >>> real("0902"), real("-.5")
    (902.0, -0.5)
    """
    if not REAL.fullmatch(text) or not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]!r} is no number")
    return number


def number_and_name(line: str) -> tuple[int, str]:
    """Return a number and the rest of the line, which is a name.

    >>> number_and_name("3 cut tomato")
    (3, 'cut tomato')
    """
    number, name = line.split(maxsplit=1)
    return whole(number), named(name)


def named(text: str) -> str:
    """Return a name of a class or file, which is no longer than those of files may be."""
    if len(text.encode()) > LONGEST:
        raise ValueError(f"{text[:20]!r}... is too long")
    return text


# --- classes ---


def class_number(name: str, classes: Mapping[str, int], path: pathlib.Path) -> int:
    """Return the position of a class, which must be known."""
    if name in classes:
        return classes[name]
    near = difflib.get_close_matches(name[:SHOWN], classes, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(
        f"Unknown label {name[:SHOWN]!r} in {str(path)!r}; its {len(classes):,} classes are {some(classes)}.{hint}"
    )


def numbered(pairs: Iterable[tuple[int, str]], first: int, path: pathlib.Path) -> tuple[str, ...]:
    """Return the names of pairs (number, name) in the order of the numbers, which must be first, first + 1, ...

    >>> numbered([(2, "b"), (1, "a")], 1, pathlib.Path("x"))
    ('a', 'b')
    """
    ordered = sorted(pairs)
    if not ordered or [number for number, _ in ordered] != list(range(first, first + len(ordered))):
        raise UserError(f"The classes of {str(path)!r} are not numbered {first}, {first + 1}, ...; get the file again.")
    names = tuple(name for _, name in ordered)
    if not all(name.strip() for name in names):
        raise UserError(f"A class of {str(path)!r} has no name; get the file again.")
    if len(set(names)) < len(ordered):
        raise UserError(f"File {str(path)!r} names a class twice; get it again.")
    return names
