"""Which drawings of the icon suite are for training, for tuning and for the test, as the committed file has it.

Reading it costs nothing and needs no font; `division` writes it.
"""

import hashlib
import json
from dataclasses import dataclass

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.files import ASSETS

Split = dict[str, dict[str, dict[str, list[list[str]]]]]  # style -> class -> part -> groups of keys `family:name`
PARTS = ("train", "tune", "test")
PATH = ASSETS / "icon_split.json"


@dataclass(frozen=True)
class Row:
    """One glyph of the suite: its key, style, class, part, and the number of its shape group within class and style."""

    key: str
    style: str
    label: str
    part: str
    group: int


def rows(split: Split | None = None) -> list[Row]:
    """List the split, the committed one by default, in its order.

    Args:
      split: from `division.make`.

    Returns:
      One row per glyph; groups of a class in a style are counted through train, tune and test.
    """
    found = []
    for style, by_class in (read() if split is None else split).items():
        for label, by_part in by_class.items():
            groups = [(part, keys) for part in PARTS for keys in by_part[part]]
            found += [Row(key, style, label, part, g) for g, (part, keys) in enumerate(groups) for key in keys]
    return found


def digest(split: Split) -> str:
    """Hash a split: SHA-256 of its canonical JSON."""
    return hashlib.sha256(json.dumps(split, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read() -> Split:
    """Read the committed split and verify its hash."""
    stored = json.loads(PATH.read_text())
    if digest(stored["split"]) != stored["sha256"]:
        command = "python -m jax_promptmtl.data.icons.division"
        raise UserError(f"{PATH.name} was edited by hand; write it again with {command}.")
    split: Split = stored["split"]
    return split
