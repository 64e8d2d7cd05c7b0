"""The evaluation of an image run: its entry in results.json, and its table."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jax_promptmtl.core.files import write_whole
from jax_promptmtl.core.versions import versions
from jax_promptmtl.reporting import typeset
from jax_promptmtl.reporting.typeset import Cell, Sheet

SCHEMA = 1
Evaluation = Mapping[str, Any]  # of `evaluation_record`


def evaluation_record(
    tasks: Sequence[str],
    count: Sequence[int],
    correct: Mapping[str, Sequence[int]],
    *,
    trainable: int,
    total: int,
) -> dict[str, Any]:
    """Return the record of an evaluation, for results.json and the table.

    Args:
      tasks: T task names.
      count: test images of each task.
      correct: {model: correct predictions per task}; gains are of the last model over the first.
      trainable: trained parameters of the last model.
      total: all its parameters, frozen ones included.

    Returns:
      Accuracies in percent per task and their plain average over tasks, gains in points, parameters and their share
      in percent.

    >>> correct = {"zero-shot": [5, 10], "MmAP": [6, 15]}
    >>> record = evaluation_record(["a", "b"], [10, 20], correct, trainable=1, total=1000)
    >>> record["average"], record["average_gain"]
    ({'zero-shot': 50.0, 'MmAP': 67.5}, 17.5)
    """
    accuracy = {
        model: [100 * int(c) / int(n) for c, n in zip(sums, count, strict=True)] for model, sums in correct.items()
    }
    first, last = next(iter(accuracy)), next(reversed(accuracy))
    gain = [after - before for before, after in zip(accuracy[first], accuracy[last], strict=True)]
    return {
        "schema": SCHEMA,
        "tasks": list(tasks),
        "images": [int(n) for n in count],
        "correct": {model: [int(c) for c in sums] for model, sums in correct.items()},
        "accuracy": accuracy,
        "average": {model: sum(values) / len(values) for model, values in accuracy.items()},
        "gain": gain,
        "average_gain": sum(gain) / len(gain),
        "trainable": int(trainable),
        "total": int(total),
        "share": 100 * trainable / total,
    }


def evaluation_sheet(record: Evaluation) -> Sheet:
    """Return the table of an evaluation: accuracy in percent of every model and task, gain in points, the average last.

    >>> record = evaluation_record(["art"], [10], {"zero-shot": [5]}, trainable=0, total=10)
    >>> print(typeset.markdown(evaluation_sheet(record)))
    | task | images | zero-shot |
    |:--|--:|--:|
    | art | 10 | 50.0 |
    | **average** | **10** | **50.0** |
    """
    models = list(record["accuracy"])
    compared = len(models) > 1
    lines = []
    for index, task in enumerate(record["tasks"]):
        values = [f"{record['accuracy'][model][index]:.1f}" for model in models]
        lines.append([task, f"{record['images'][index]:,}", *values] + [f"{record['gain'][index]:+.1f}"] * compared)
    values = [f"{record['average'][model]:.1f}" for model in models]
    average = [f"{record['average_gain']:+.1f}"] * compared
    lines.append(["average", f"{sum(record['images']):,}", *values, *average])
    header = ("task", "images", *models, *["gain"] * compared)
    return Sheet(header, [[*map(Cell, line)] for line in lines], summary=True)


def parameters_text(record: Evaluation) -> str:
    """Describe the trained share of the parameters.

    >>> parameters_text({"trainable": 1, "total": 1000, "share": 0.1})
    'trainable parameters: 1 of 1,000 (0.100 %)'
    """
    return f"trainable parameters: {record['trainable']:,} of {record['total']:,} ({record['share']:.3f} %)"


def console_evaluation(record: Evaluation) -> str:
    """Return the table of an evaluation for a terminal.

    >>> correct = {"zero-shot": [5, 10], "MmAP": [6, 15]}
    >>> record = evaluation_record(["art", "product"], [10, 20], correct, trainable=1, total=1000)
    >>> print(console_evaluation(record))
    task     images  zero-shot  MmAP   gain
    ───────────────────────────────────────
    art          10       50.0  60.0  +10.0
    product      20       50.0  75.0  +25.0
    ───────────────────────────────────────
    average      30       50.0  67.5  +17.5
    trainable parameters: 1 of 1,000 (0.100 %)
    """
    return f"{typeset.console(evaluation_sheet(record))}\n{parameters_text(record)}"


def write_results(workdir: pathlib.Path, record: Evaluation, *, command: str, timings: Mapping[str, float]) -> None:
    """Write an evaluation into results.json of a work directory, with the command, the seconds and the versions."""
    content = {**record, "command": command, "timings": dict(timings), "versions": versions()}
    write_whole(workdir / "results.json", json.dumps(content, indent=1) + "\n")
