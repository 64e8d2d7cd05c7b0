"""Put two runs side by side: what differs in their configs, and by how much their results differ.

    python -m jax_promptmtl.compare runs/mmap runs/clip_maple
    python -m jax_promptmtl.compare runs/benchmark/records/mmap-a.json runs/benchmark/records/coop-b.json

RUN_A and RUN_B are work directories, or record files of a benchmark. Differences are B minus A in points, with a paired
bootstrap interval (2,000 resamples of the test drawings, 95 %) where both answered the same test images. Of videos the
metrics are compared, without intervals.
"""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jax_promptmtl.core import command
from jax_promptmtl.core.errors import pick
from jax_promptmtl.reporting.typeset import Cell, Sheet, console

if TYPE_CHECKING:  # else only when it is used: --help and mistakes do not wait for JAX
    from jax_promptmtl.reporting.compare import Run


def write_table(first: "Run", second: "Run") -> None:
    """Print what differs, for reading."""
    from jax_promptmtl.reporting.compare import cells, config_difference, results, why_not

    print(f"A  {first.place}: {first.title}\nB  {second.place}: {second.title}\n")
    changed = config_difference(first, second)
    if changed:
        lines = [[Cell(path), *(Cell(shorten(value)) for value in pair)] for path, pair in changed.items()]
        print(console(Sheet(("config", "A", "B"), lines, words=3)))
    else:
        print("Their configs are equal.")
    found = results(first, second)
    header = ("measured" if first.videos else "task", "A", "B", "B - A", "95 % interval")
    print("\n" + console(Sheet(header, [*map(cells, found)])))
    if found[0]["interval"] is None:
        print(f"No interval: {why_not(first, second)}")
    trained = [run.about.get("trainable") for run in (first, second)]
    if all(size is not None for size in trained):
        print(f"trainable parameters: A {trained[0]:,}, B {trained[1]:,}")


def shorten(value: Any, most: int = 40) -> str:
    """Return a value as text of bounded length.

    >>> shorten([1, 2]), shorten("x" * 50)[-3:]
    ('[1, 2]', '...')
    """
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def write_json(first: "Run", second: "Run") -> None:
    """Print what differs as one object."""
    from jax_promptmtl.reporting.compare import config_difference, results

    runs = {key: {"place": run.place, "title": run.title, **run.about} for key, run in (("a", first), ("b", second))}
    changed = {path: list(pair) for path, pair in config_difference(first, second).items()}
    print(json.dumps(runs | {"config": changed, "results": results(first, second)}, indent=1))


FORMATS = {"json": write_json, "table": write_table}


def start(argv: Sequence[str]) -> None:
    """Read the options and both runs, and print what differs."""
    parser = command.parser("compare", __doc__)
    parser.usage = "%(prog)s RUN_A RUN_B [options]"
    parser.add_argument("runs", metavar="RUN", nargs=2, help="work directory or record file")
    parser.add_argument("--format", default="table", help="table (default) or json")
    options = parser.parse_args(argv)
    write = FORMATS[pick(options.format, FORMATS, "format")]
    from jax_promptmtl.reporting.compare import read

    write(*map(read, options.runs))


if __name__ == "__main__":
    sys.exit(command.run(start))
