"""A `repr` for objects that hold arrays: one screen of shapes and counts, never values."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

WIDTH = 80  # columns of a line
LEAVES = 6  # keys of a tree, or elements of a list, shown in full


def outline(thing: Any) -> str:
    """Return the fields of a dataclass, each on a line of its own; meant as its `__repr__`.

    >>> @dataclasses.dataclass
    ... class Point:
    ...     name: str
    ...     params: dict
    ...     __repr__ = outline
    >>> Point("a", {"x": {"y": None, "z": 3}})
    Point(
      name: 'a'
      params: {x}
    )
    """
    fields = [(field.name, getattr(thing, field.name)) for field in dataclasses.fields(thing) if field.repr]
    lines = [line for name, value in fields for line in (f"{name}: {brief(value)}", *parts(value))]
    return "\n".join([f"{type(thing).__name__}(", *(f"  {cut(line, WIDTH - 2)}" for line in lines), ")"])


def parts(value: Any) -> list[str]:
    """Return one line per array of a tree or dataclass of a list; none for anything else."""
    lines = []
    if isinstance(value, Mapping):
        lines = [f"{path}: {brief(leaf)}" for path, leaf in leaves(value) if is_array(leaf)]
    elif isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        lines = [brief(item) for item in value if dataclasses.is_dataclass(item)]
    more = [f"... and {len(lines) - LEAVES:,} more"] if len(lines) > LEAVES else []
    return [f"  {line}" for line in lines[:LEAVES] + more]


def brief(value: Any) -> str:
    """Return a value in one line.

    >>> brief(("a", "b")), brief(3), brief({"x": [1], "y": 2}), brief(len), brief(())
    ("2: 'a', 'b'", '3', '{x, y}', 'len()', 'none')
    """
    if value is None or isinstance(value, bool | int | float | complex):
        return repr(value)
    if isinstance(value, str):
        return repr(cut(value, WIDTH // 2))
    if is_array(value):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    if isinstance(value, Mapping) or any(is_array(leaf) for _, leaf in leaves(value)):
        return counts(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return cut(record(value), WIDTH)
    if isinstance(value, list | tuple | set | frozenset):
        some = [] if any(map(dataclasses.is_dataclass, value)) else [brief(item) for item in list(value)[:LEAVES]]
        return cut(listed(some, len(value)), WIDTH) if value else "none"
    name = getattr(value, "__qualname__", getattr(getattr(value, "func", None), "__qualname__", ""))
    if callable(value) and name:
        return f"{name.replace('<locals>.', '')}()"
    return f"{len(value):,} x {type(value).__name__}" if hasattr(value, "__len__") else type(value).__name__


def listed(some: list[str], count: int) -> str:
    """Return how many there are, then the first ones."""
    more = ", ..." if some and len(some) < count else ""
    return f"{count:,}" + (": " if some else "") + ", ".join(some) + more


def record(value: Any) -> str:
    """Return a dataclass in one line: its length if it has one, else its fields."""
    if hasattr(value, "__len__"):
        return f"{len(value):,} x {type(value).__name__}"
    fields = [field.name for field in dataclasses.fields(value) if field.repr]
    return f"{type(value).__name__}({', '.join(f'{name}: {short(getattr(value, name))}' for name in fields)})"


def short(value: Any) -> str:
    """Return a value as part of a line; a list is reduced to its length."""
    return f"{len(value):,}" if isinstance(value, list | tuple) else brief(value)


def counts(value: Any) -> str:
    """Summarise a tree: arrays and scalars, true leaves of a mask, or the keys."""
    found = [leaf for _, leaf in leaves(value)]
    arrays = [leaf for leaf in found if is_array(leaf)]
    if arrays:
        numbers = sum(math.prod(leaf.shape) for leaf in arrays)
        return f"{len(arrays):,} array{'s' * (len(arrays) > 1)}, {numbers:,} numbers"
    if found and all(isinstance(leaf, bool) for leaf in found):
        return f"{sum(found):,} of {len(found):,} true"
    return cut("{" + ", ".join(map(str, value)) + "}", WIDTH)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and value of every leaf of nested mappings and lists that is not None."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from leaves(part, f"{path}/{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from leaves(part, f"{path}/{number}")
    elif value is not None:
        yield path, value


def is_array(value: Any) -> bool:
    """Return whether a value has a shape and a dtype, without importing an array library."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def cut(text: str, width: int) -> str:
    """Collapse a text to one line of at most `width` characters.

    >>> cut("a  long text", 8)
    'a lon...'
    """
    text = text[: len(text) - len(text.lstrip(" "))] + " ".join(text.split())
    return text if len(text) <= width else text[: width - 3] + "..."
