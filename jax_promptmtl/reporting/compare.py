"""Compare two runs: differences of their configs and of their results."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.files import read_json
from jax_promptmtl.reporting import records
from jax_promptmtl.reporting.typeset import Cell, Sheet, console
from jax_promptmtl.tasks.metrics import paired

UNSET = "(unset)"
ABOUT = ("trainable", "split_hash", "test_hash")  # the data of a run, and its number of trained parameters


@dataclass(frozen=True)
class FinishedRun:
    """One run with T tasks, or of videos with T measurements.

    Attributes:
      place: its path.
      title: of its method.
      config: {path: value} of its resolved config.
      about: identity of its data, and its size.
      scores: {task or measurement: percent}.
      right: {task: bool[test images]}, true where correct; {} where the run has no answers per image.
      drawing: {task: int[test images]}, the drawing shown in each image.
      videos: whether the scores are measurements of videos.
    """

    place: str
    title: str
    config: Mapping[str, Any]
    about: Mapping[str, Any]
    scores: Mapping[str, float]
    right: Mapping[str, np.ndarray] = field(default_factory=dict)
    drawing: Mapping[str, np.ndarray] = field(default_factory=dict)
    videos: bool = False


@dataclass(frozen=True)
class ScoreDifference:
    """The scores of runs A and B on a task, or on the average of tasks.

    Attributes:
      task: or measurement of videos.
      a, b: percents.
      interval: 95 % of B minus A over the test drawings, where both answered the same images.
    """

    task: str
    a: float
    b: float
    interval: tuple[float, float] | None

    @property
    def points(self) -> float:
        """Return B minus A."""
        return self.b - self.a


def read_run(place: str) -> FinishedRun:
    """Read a work directory or a record.

    Raises:
      UserError: it is no finished run.
    """
    path = pathlib.Path(place).expanduser()
    if path.is_dir() and (path / "results.json").is_file():
        content, config = read_json(path / "results.json"), read_json(path / "config.json")
        if "accuracy" not in content:
            return _video_run(place, content, config)
        title = next(reversed(content["accuracy"]))
        return _image_run(place, title, config, content, content["accuracy"][title], content["images"])
    if not path.is_file():
        raise UserError(f"{place!r} is no finished run; give a work directory with results.json, or a record file.")
    content = read_json(path)
    if problem := records.describe_fault(content):
        raise UserError(f"{place!r} cannot be compared: {problem}; give a work directory or a record.")
    if content["status"] == "failed":
        raise UserError(f"The run {place!r} failed ({content['error']}); give one that is done.")
    if records.kind_of(content) == "video":
        title = f"{content['title']} for {content['task']}"
        config, about = tree.flatten(content["config"]), _about(content)
        return FinishedRun(place, title, config, about, video_scores(content), videos=True)
    accuracy = records.accuracy(content)
    return _image_run(place, content["title"], content["config"], content, accuracy, content["count"])


def _image_run(
    place: str,
    title: str,
    config: Mapping[str, Any],
    content: Mapping[str, Any],
    accuracy: Sequence[float],
    count: Sequence[int],
) -> FinishedRun:
    """Return a run on images; `content` holds its tasks and perhaps its answers per image."""
    tasks = content["tasks"]
    run = FinishedRun(place, title, tree.flatten(config), _about(content), dict(zip(tasks, accuracy, strict=True)))
    if "right" not in content:
        return run
    flat = records.unpack_bits(content["right"], sum(count)), records.drawings(content)
    parts = (np.split(values, np.cumsum(count)[:-1]) for values in flat)
    right, drawing = (dict(zip(tasks, part, strict=True)) for part in parts)
    return replace(run, right=right, drawing=drawing)


def _video_run(place: str, content: Mapping[str, Any], config: Mapping[str, Any]) -> FinishedRun:
    """Return the run of a video job, which has several rows, or of a fine-tuning job."""
    if config.get("job") != "video":
        title = f"{config['data']['name']}, fine-tuned"
        return FinishedRun(place, title, tree.flatten(config), {}, dict(content), videos=True)
    found = {f"{row['title']}: {name}": value for row in content.values() for name, value in video_scores(row).items()}
    return FinishedRun(place, f"rows for {config['task']}", tree.flatten(config), {}, found, videos=True)


def video_scores(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores of a video row, by part of the videos and kind of prompts.

    >>> scores = {"dynamic": {"test": {"map": 3.0}}, "static": {"shifted": {"map": 2.0}}}
    >>> video_scores({"metric": "map", "scores": scores})
    {'test, map': 3.0, 'shifted, static, map': 2.0}
    """
    kinds = {"dynamic": "", "static": ", static"}
    return {
        f"{part}{kinds[kind]}, {row['metric']}": metrics[row["metric"]]
        for kind, parts in row["scores"].items()
        for part, metrics in parts.items()
    }


def _about(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: content.get(key) for key in ABOUT}


def config_changes(first: FinishedRun, second: FinishedRun) -> dict[str, tuple[Any, Any]]:
    """Return {path: (value of A, value of B)} of the keys that differ."""
    paths = dict.fromkeys([*first.config, *second.config])
    pairs = {path: (first.config.get(path, UNSET), second.config.get(path, UNSET)) for path in paths}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def _same_images(first: FinishedRun, second: FinishedRun) -> bool:
    """Return whether both runs have answers on the same test images."""
    told = [run.about.get("test_hash") for run in (first, second)]
    key = "test_hash" if all(told) else "split_hash"
    return first.about.get(key) is not None and first.about[key] == second.about.get(key)


def score_differences(first: FinishedRun, second: FinishedRun) -> list[ScoreDifference]:
    """Return the difference on each common task, and for images also on the average of several.

    Raises:
      UserError: they have no task in common.
    """
    tasks = [task for task in first.scores if task in second.scores]
    if not tasks:
        raise UserError(
            f"The runs have no task in common: {', '.join(first.scores)} against {', '.join(second.scores)}."
        )
    told = first.right and second.right and _same_images(first, second)
    average = [("average", tasks)] if len(tasks) > 1 and not first.videos else []
    rows = []
    for name, part in [*((task, [task]) for task in tasks), *average]:
        a, b = (float(np.mean([run.scores[task] for task in part])) for run in (first, second))
        interval = None
        if told:
            values = [100 * (second.right[task].astype(float) - first.right[task]) for task in part]
            _, low, high = paired.bootstrap(values, [first.drawing[task] for task in part])
            interval = low, high
        rows.append(ScoreDifference(name, a, b, interval))
    return rows


def _difference_sheet(found: Sequence[ScoreDifference], header: str) -> Sheet:
    """Return a line per task."""
    lines = []
    for row in found:
        interval = "[{:+.1f}, {:+.1f}]".format(*row.interval) if row.interval else ""
        lines.append([*map(Cell, (row.task, f"{row.a:.1f}", f"{row.b:.1f}", f"{row.points:+.1f}", interval))])
    return Sheet((header, "A", "B", "B - A", "95 % interval"), lines)


def _why_no_interval(first: FinishedRun, second: FinishedRun) -> str:
    """Explain why there is no paired interval."""
    if first.videos or second.videos:
        return "the answers for videos are not compared one by one."
    silent = [run.place for run in (first, second) if not run.right]
    if silent:
        return f"{silent[0]} does not tell its answers per image; run it again with --config.stage=evaluate."
    return "the runs were not tested on the same images."


def comparison_text(first: FinishedRun, second: FinishedRun) -> str:
    """Describe the differences of runs A and B as text."""
    changed, found = config_changes(first, second), score_differences(first, second)
    parts = [f"A  {first.place}: {first.title}\nB  {second.place}: {second.title}"]
    if changed:
        lines = [[Cell(path), *(Cell(_shorten(value)) for value in pair)] for path, pair in changed.items()]
        parts.append(console(Sheet(("config", "A", "B"), lines, words=3)))
    else:
        parts.append("Their configs are equal.")
    last = [console(_difference_sheet(found, "measured" if first.videos else "task"))]
    if found[0].interval is None:
        last.append(f"No interval: {_why_no_interval(first, second)}")
    trained = [run.about.get("trainable") for run in (first, second)]
    if all(size is not None for size in trained):
        last.append(f"trainable parameters: A {trained[0]:,}, B {trained[1]:,}")
    return "\n\n".join([*parts, "\n".join(last)])


def _shorten(value: Any, most: int = 40) -> str:
    """Return a value as text of bounded length.

    >>> _shorten([1, 2]), _shorten("x" * 50)[-3:]
    ('[1, 2]', '...')
    """
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def comparison_json(first: FinishedRun, second: FinishedRun) -> str:
    """Return the differences of runs A and B as a JSON object."""
    runs = {key: {"place": run.place, "title": run.title, **run.about} for key, run in (("a", first), ("b", second))}
    changed = {path: list(pair) for path, pair in config_changes(first, second).items()}
    results = [
        {"task": row.task, "a": row.a, "b": row.b, "difference": row.points, "interval": row.interval}
        for row in score_differences(first, second)
    ]
    return json.dumps(runs | {"config": changed, "results": results}, indent=1)
