"""Records that are kept one by one, so that work may be stopped at any time and go on."""

import contextlib
import json
import pathlib
from typing import Any


class KeptLines:
    """A file of JSON objects, one a line; the last line of one that was stopped while it wrote is dropped.

    Args:
      path: the file, made when it is first added to; None keeps nothing.

    Attributes:
      rows: what was there.
    """

    def __init__(self, path: pathlib.Path | None):
        self.path = path
        self.rows: list[dict[str, Any]] = []
        text = path.read_text("utf-8") if path is not None and path.exists() else ""
        self.whole = not text or text.endswith("\n")
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                self.rows.append(json.loads(line))

    def add(self, row: dict[str, Any]) -> None:
        """Write a record at once."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("" if self.whole else "\n") + json.dumps(row) + "\n")
        self.whole = True
