"""Put two runs side by side: what differs in their configs, and by how much their results differ."""

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.files import read_json
from jax_promptmtl.reporting import records
from jax_promptmtl.reporting.typeset import Cell
from jax_promptmtl.tasks.metrics import paired

UNSET = "(unset)"


@dataclass(frozen=True)
class Run:
    """One run with T tasks, or of videos with T measurements.

    Attributes:
      place: where it was read.
      title: of its method.
      config: {path: value} of its resolved config.
      about: what identifies its data, and its sizes.
      accuracy: {task or measurement: percent}.
      right: {task: bool[test images]}, which were answered right; {} where the run does not tell.
      drawing: {task: int[test images]}, which drawing each image shows.
    """

    place: str
    title: str
    config: Mapping[str, Any]
    about: Mapping[str, Any]
    accuracy: Mapping[str, float]
    right: Mapping[str, np.ndarray] = field(default_factory=dict)
    drawing: Mapping[str, np.ndarray] = field(default_factory=dict)
    videos: bool = False


def read(place: str) -> Run:
    """Read a work directory or a record."""
    path = pathlib.Path(place).expanduser()
    if path.is_dir() and (path / "results.json").is_file():
        content = read_json(path / "results.json")
        if "accuracy" not in content:
            return read_videos(place, content, read_json(path / "config.json"))
        title = next(reversed(content["accuracy"]))
        accuracy, count = content["accuracy"][title], content["images"]
        config = read_json(path / "config.json")
    elif path.is_file():
        content = read_json(path)
        if problem := records.complain(content):
            raise UserError(f"{place!r} cannot be compared: {problem}; give a work directory or a record.")
        if content["status"] == "failed":
            raise UserError(f"The run {place!r} failed ({content['error']}); give one that is done.")
        if records.kind_of(content) == "video":
            title = f"{content['title']} for {content['task']}"
            return Run(place, title, tree.flatten(content["config"]), sizes(content), scores(content), videos=True)
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
    about = sizes(content)
    return Run(
        place,
        title,
        tree.flatten(config),
        about,
        dict(zip(tasks, accuracy, strict=True)),
        rows["right"],
        rows["drawing"],
    )


def read_videos(place: str, content: Mapping[str, Any], config: Mapping[str, Any]) -> Run:
    """Return the run of a video job, of several rows, or of a fine-tuning job."""
    if config.get("job") != "video":
        title = f"{config['data']['name']}, fine-tuned"
        return Run(place, title, tree.flatten(config), {}, dict(content), videos=True)
    found = {f"{row['title']}: {name}": value for row in content.values() for name, value in scores(row).items()}
    return Run(place, f"rows for {config['task']}", tree.flatten(config), {}, found, videos=True)


def scores(row: Mapping[str, Any]) -> dict[str, float]:
    """Return what a row of the video job scores, by part of the clips and kind of prompts.

    >>> scores({"metric": "map", "scores": {"dynamic": {"test": {"map": 3.0}}, "static": {"shifted": {"map": 2.0}}}})
    {'test, map': 3.0, 'shifted, static, map': 2.0}
    """
    kinds = {"dynamic": "", "static": ", static"}
    return {
        f"{part}{kinds[kind]}, {row['metric']}": metrics[row["metric"]]
        for kind, parts in row["scores"].items()
        for part, metrics in parts.items()
    }


def sizes(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what identifies the data of a run, and how many parameters it trained."""
    return {key: content.get(key) for key in ("trainable", "split_hash", "test_hash")}


def config_difference(first: Run, second: Run) -> dict[str, tuple[Any, Any]]:
    """Return {path: (value of A, value of B)} of the keys that differ."""
    paths = dict.fromkeys([*first.config, *second.config])
    pairs = {path: (first.config.get(path, UNSET), second.config.get(path, UNSET)) for path in paths}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def same_test(first: Run, second: Run) -> bool:
    """Say whether both runs answered the same test images, as far as they tell."""
    told = [run.about.get("test_hash") for run in (first, second)]
    key = "test_hash" if all(told) else "split_hash"
    return first.about.get(key) is not None and first.about[key] == second.about.get(key)


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
    average = [("average", tasks)] if len(tasks) > 1 and not first.videos else []
    for name, part in [*((task, [task]) for task in tasks), *average]:
        a, b = (float(np.mean([run.accuracy[task] for task in part])) for run in (first, second))
        row: dict[str, Any] = {"task": name, "a": a, "b": b, "difference": b - a, "interval": None}
        if told:
            values = [100 * (second.right[task].astype(float) - first.right[task]) for task in part]
            row["interval"] = paired.bootstrap(values, [first.drawing[task] for task in part])[1:]
        rows.append(row)
    return rows


def cells(row: Mapping[str, Any]) -> list[Cell]:
    """Return a row of `results` as cells."""
    interval = "" if row["interval"] is None else "[{:+.1f}, {:+.1f}]".format(*row["interval"])
    return [
        Cell(text)
        for text in (row["task"], f"{row['a']:.1f}", f"{row['b']:.1f}", f"{row['difference']:+.1f}", interval)
    ]


def why_not(first: Run, second: Run) -> str:
    """Return why there is no paired interval."""
    if first.videos or second.videos:
        return "the answers for videos are not compared one by one."
    silent = [run.place for run in (first, second) if not run.right]
    if silent:
        return f"{silent[0]} does not tell its answers per image; run it again with --config.stage=evaluate."
    return "the runs were not tested on the same images."
