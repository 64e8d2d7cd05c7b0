"""What a look at data found, and how it is put."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

LISTED = 20  # problems of a kind that are named one by one


@dataclass
class Findings:
    """What a look at the data found: text to print, remarks, and problems."""

    text: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def watch(steps: Iterable, count: int) -> Iterable:
    """Show the progress of many steps, on a terminal only."""
    return tqdm(steps, "opening files", count, mininterval=1, disable=None)


def most(lines: Sequence[str]) -> list[str]:
    """Return the first lines, and how many others there are.

    >>> len(most(["x"] * 30)), most(["x"] * 30)[-1]
    (21, '... and 10 others')
    """
    more = len(lines) - LISTED
    return [*lines[:LISTED], *([f"... and {more:,} others"] if more > 0 else [])]
