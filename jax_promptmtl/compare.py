"""Put two runs side by side: what differs in their configs, and by how much their results differ.

    python -m jax_promptmtl.compare runs/mmap runs/clip_maple
    python -m jax_promptmtl.compare runs/benchmark/records/mmap-a.json runs/benchmark/records/coop-b.json

RUN_A and RUN_B are work directories, or record files of a benchmark. Differences are B minus A in points, with a paired
bootstrap interval (2,000 resamples of the test drawings, 95 %) where both answered the same test images.
"""

import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jax_promptmtl import command, records, tree
from jax_promptmtl.backbones.tokenizer import read_json
from jax_promptmtl.errors import UserError, pick
from jax_promptmtl.metrics import paired
from jax_promptmtl.typeset import Cell, Sheet, console

UNSET = "(unset)"


@dataclass(frozen=True)
class Run:
    """One run with T tasks.

    Attributes:
      place: where it was read.
      title: of its method.
      config: {path: value} of its resolved config.
      about: what identifies its data, and its sizes.
      accuracy: {task: percent}.
      right: {task: bool[test images]}, which were answered right; {} where the run does not tell.
      drawing: {task: int[test images]}, which drawing each image shows.
    """

    place: str
    title: str
    config: Mapping[str, Any]
    about: Mapping[str, Any]
    accuracy: Mapping[str, float]
    right: Mapping[str, np.ndarray]
    drawing: Mapping[str, np.ndarray]


def read(place: str) -> Run:
    """Read a work directory or a record."""
    path = pathlib.Path(place).expanduser()
    if path.is_dir() and (path / "results.json").is_file():
        content = read_json(path / "results.json")
        title = next(reversed(content["accuracy"]))
        accuracy, count = content["accuracy"][title], content["images"]
        config = read_json(path / "config.json")
    elif path.is_file():
        content = read_json(path)
        if problem := records.complain(content):
            raise UserError(f"{place!r} cannot be compared: {problem}; give a work directory or a record.")
        if content["status"] == "failed":
            raise UserError(f"The run {place!r} failed ({content['error']}); give one that is done.")
        accuracy, count = records.accuracy(content), content["count"]
        title, config = content["title"], content["config"]
    else:
        raise UserError(f"{place!r} is no finished run; give a work directory with results.json, or a record file.")
    tasks = content["tasks"]
    rows: dict[str, dict[str, np.ndarray]] = {"right": {}, "drawing": {}}
    if "right" in content:
        flat = {"right": records.unpack_bits(content["right"], sum(count)), "drawing": records.drawings(content)}
        parts = {name: np.split(values, np.cumsum(count)[:-1]) for name, values in flat.items()}
        rows = {name: dict(zip(tasks, part, strict=True)) for name, part in parts.items()}
    about = {key: content.get(key) for key in ("trainable", "split_hash", "test_hash")}
    return Run(place, title, tree.flatten(config), about, dict(zip(tasks, accuracy, strict=True)), **rows)


def config_difference(first: Run, second: Run) -> dict[str, tuple[Any, Any]]:
    """Return {path: (value of A, value of B)} of the keys that differ."""
    paths = dict.fromkeys([*first.config, *second.config])
    pairs = {path: (first.config.get(path, UNSET), second.config.get(path, UNSET)) for path in paths}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def same_test(first: Run, second: Run) -> bool:
    """Say whether both runs answered the same test images, as far as they tell."""
    key = "test_hash" if first.about["test_hash"] and second.about["test_hash"] else "split_hash"
    return first.about[key] is not None and first.about[key] == second.about[key]


def results(first: Run, second: Run) -> list[dict[str, Any]]:
    """Return one row per common task and one for their average: `a`, `b`, `difference`, and `interval` or None.

    Raises:
      UserError: they have no task in common.
    """
    tasks = [task for task in first.accuracy if task in second.accuracy]
    if not tasks:
        raise UserError(
            f"The runs have no task in common: {', '.join(first.accuracy)} against {', '.join(second.accuracy)}."
        )
    told = first.right and second.right and same_test(first, second)
    rows = []
    for name, part in [*((task, [task]) for task in tasks), *([("average", tasks)] if len(tasks) > 1 else [])]:
        a, b = (float(np.mean([run.accuracy[task] for task in part])) for run in (first, second))
        row: dict[str, Any] = {"task": name, "a": a, "b": b, "difference": b - a, "interval": None}
        if told:
            values = [100 * (second.right[task].astype(float) - first.right[task]) for task in part]
            row["interval"] = paired.bootstrap(values, [first.drawing[task] for task in part])[1:]
        rows.append(row)
    return rows


def write_table(first: Run, second: Run) -> None:
    """Print what differs, for reading."""
    print(f"A  {first.place}: {first.title}\nB  {second.place}: {second.title}\n")
    changed = config_difference(first, second)
    if changed:
        lines = [[Cell(path), *(Cell(shorten(value)) for value in pair)] for path, pair in changed.items()]
        print(console(Sheet(("config", "A", "B"), lines, words=3)))
    else:
        print("Their configs are equal.")
    found = results(first, second)
    print("\n" + console(Sheet(("task", "A", "B", "B - A", "95 % interval"), [*map(cells, found)])))
    if found[0]["interval"] is None:
        print(f"No interval: {why_not(first, second)}")
    sizes = [run.about["trainable"] for run in (first, second)]
    if all(size is not None for size in sizes):
        print(f"trainable parameters: A {sizes[0]:,}, B {sizes[1]:,}")


def cells(row: Mapping[str, Any]) -> list[Cell]:
    """Return a row of `results` as cells."""
    interval = "" if row["interval"] is None else "[{:+.1f}, {:+.1f}]".format(*row["interval"])
    return [
        Cell(text)
        for text in (row["task"], f"{row['a']:.1f}", f"{row['b']:.1f}", f"{row['difference']:+.1f}", interval)
    ]


def why_not(first: Run, second: Run) -> str:
    """Return why there is no paired interval."""
    silent = [run.place for run in (first, second) if not run.right]
    if silent:
        return f"{silent[0]} does not tell its answers per image; run it again with --config.stage=evaluate."
    return "the runs were not tested on the same images."


def shorten(value: Any, most: int = 40) -> str:
    """Return a value as text of bounded length.

    >>> shorten([1, 2]), shorten("x" * 50)[-3:]
    ('[1, 2]', '...')
    """
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def write_json(first: Run, second: Run) -> None:
    """Print what differs as one object."""
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
    FORMATS[pick(options.format, FORMATS, "format")](*map(read, options.runs))


if __name__ == "__main__":
    sys.exit(command.run(start))
