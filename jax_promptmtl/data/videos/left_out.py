"""What a run with `data.strict=False` could not read: named when it is met, counted, and kept in a file."""

import pathlib
import threading
from collections.abc import Callable

from jax_promptmtl.core.errors import some
from jax_promptmtl.data.videos.kept_lines import KeptLines


class LeftOut:
    """Examples that were left out, and videos that are used only up to where they end.

    Args:
      path: the list, one JSON object a line; "" keeps it in memory. What an earlier run noted there is taken over.
      say: is told of each when it is met first.
    """

    def __init__(self, path: str | pathlib.Path = "", say: Callable[[str], object] = print):
        self.path, self.say = pathlib.Path(path) if path else None, say
        self.kept, self.lock = KeptLines(self.path), threading.Lock()
        self.found: dict[str, str] = {}
        self.short: dict[str, str] = {}
        for row in self.kept.rows:
            (self.found if row["left_out"] else self.short)[row["name"]] = row["why"]

    def add(self, name: str, why: str, *, short: bool = False) -> None:
        """Note an example that was left out, or, if `short`, a video that ends early."""
        with self.lock:
            known = self.short if short else self.found
            if name in known:
                return
            known[name] = why
            self.say(f"{'used up to where it ends' if short else 'left out'}: {name!r}: {why}")
            self.kept.add({"left_out": not short, "name": name, "why": why})

    def words(self) -> list[str]:
        """Return in words what was left out and what was cut short.

        >>> left_out = LeftOut(say=lambda line: None)
        >>> left_out.add("clip", "Video 'clip' is empty.")
        >>> left_out.words()
        ["1 examples cannot be read and were left out: 'clip'"]
        """
        kept = f"; all are listed in {str(self.path)!r}" if self.path is not None else ""
        lines = [
            (self.found, "examples cannot be read and were left out"),
            (self.short, "videos end early and were used up to there"),
        ]
        return [f"{len(names):,} {what}: {some(sorted(names))}{kept}" for names, what in lines if names]
