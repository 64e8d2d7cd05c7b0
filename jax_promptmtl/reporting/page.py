"""What a job leaves to read: results.json, one table, and report.md with its pictures."""

import json
import pathlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.versions import versions

SCHEMA = 1


def results(
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
      correct: {model: right predictions of each task}; the first model is what the last is compared with.
      trainable: trained parameters of the last model.
      total: all its parameters, frozen ones included.

    Returns:
      Accuracies in percent per task and their plain average over tasks, gains in points, parameters and their share
      in percent.

    >>> record = results(["a", "b"], [10, 20], {"zero-shot": [5, 10], "MmAP": [6, 15]}, trainable=1, total=1000)
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


def _cells(record: Mapping[str, Any]) -> list[list[str]]:
    """Return header, one row per task, and the average, as text."""
    models = list(record["accuracy"])
    compared = len(models) > 1
    rows = [["task", "images", *models] + ["gain"] * compared]
    for index, task in enumerate(record["tasks"]):
        values = [f"{record['accuracy'][model][index]:.1f}" for model in models]
        rows.append([task, f"{record['images'][index]:,}", *values] + [f"{record['gain'][index]:+.1f}"] * compared)
    values = [f"{record['average'][model]:.1f}" for model in models]
    rows.append(
        ["average", f"{sum(record['images']):,}", *values] + [f"{record['average_gain']:+.1f}"] * compared,
    )
    return rows


def _parameters(record: Mapping[str, Any]) -> str:
    return f"{record['trainable']:,} of {record['total']:,} ({record['share']:.3f} %)"


def table(record: Mapping[str, Any]) -> str:
    """Return the console table of a `results` record: accuracy in percent, gain in points.

    >>> record = results(["art", "product"], [10, 20], {"zero-shot": [5, 10], "MmAP": [6, 15]}, trainable=1, total=1000)
    >>> print(table(record))
    task     images  zero-shot  MmAP   gain
    ───────────────────────────────────────
    art          10       50.0  60.0  +10.0
    product      20       50.0  75.0  +25.0
    ───────────────────────────────────────
    average      30       50.0  67.5  +17.5
    trainable parameters: 1 of 1,000 (0.100 %)
    """
    rows = _cells(record)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells))
    rule = "─" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], f"trainable parameters: {_parameters(record)}"])


def markdown(record: Mapping[str, Any]) -> str:
    """Return the same table in Markdown, the average in bold.

    >>> print(markdown(results(["art"], [10], {"zero-shot": [5]}, trainable=0, total=10)))
    | task | images | zero-shot |
    |:--|--:|--:|
    | art | 10 | 50.0 |
    | **average** | **10** | **50.0** |
    <BLANKLINE>
    Trainable parameters: 0 of 10 (0.000 %)
    """
    rows = _cells(record)
    rows[-1] = [f"**{cell}**" for cell in rows[-1]]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|:--|" + "--:|" * (len(rows[0]) - 1))
    return "\n".join([*lines, "", f"Trainable parameters: {_parameters(record)}"])


def duration(seconds: float) -> str:
    """Return a time span for humans.

    >>> [duration(s) for s in (0.5, 59.96, 61, 3725)]
    ['0.5 s', '1 min 00 s', '1 min 01 s', '1 h 02 min']
    """
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def write_results(
    workdir: pathlib.Path, record: Mapping[str, Any], *, command: str, timings: Mapping[str, float]
) -> None:
    """Write results.json of a `results` record into the work directory; see `write_report`."""
    content = {**record, "command": command, "timings": dict(timings), "versions": versions()}
    (workdir / "results.json").write_text(json.dumps(content, indent=1) + "\n")


def write_report(
    workdir: str | pathlib.Path,
    *,
    title: str,
    command: str,
    record: Mapping[str, Any],
    config: Mapping[str, Any],
    timings: Mapping[str, float],
    groups: Mapping[str, Any] | None = None,
    pictures: Mapping[str, str] | None = None,
    sections: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
) -> pathlib.Path:
    """Write report.md of a `results` record into the work directory.

    Args:
      workdir: of the job; pictures and files are named relative to it.
      title: heading.
      command: exactly what was typed.
      record: from `results`.
      config: flat {key: value} of what is worth reading; the whole config is a file of its own.
      timings: {stage: seconds}.
      groups: content of grouping.json, or `None` where no groups were learned.
      pictures: {relative path: caption}.
      sections: further paragraphs of Markdown, after the pictures.
      files: {relative path: what it is}.

    Returns:
      The path of report.md.

    Raises:
      UserError: a picture or file that is not there.
    """
    workdir, pictures, files = pathlib.Path(workdir), pictures or {}, files or {}
    files = {"results.json": "the numbers of this page, with counts"} | dict(files)
    missing = [name for name in [*pictures, *files] if not (workdir / name).exists()]
    if missing:
        raise UserError(
            f"The report names {', '.join(missing)}, which {workdir} does not hold; run the whole job again."
        )
    parts = [
        "## Result",
        "Accuracy in percent on every test image; the average is over tasks, the gain in percentage points.",
        markdown(record),
        *(_group_section(groups) if groups else []),
        *(["## Pictures"] if pictures else []),
        *(picture(name, caption) for name, caption in pictures.items()),
        *sections,
    ]
    return write_page(workdir, title=title, parts=parts, command=command, config=config, timings=timings, files=files)


def write_page(
    workdir: pathlib.Path,
    *,
    title: str,
    parts: Sequence[str],
    command: str,
    config: Mapping[str, Any],
    timings: Mapping[str, float],
    files: Mapping[str, str],
) -> pathlib.Path:
    """Write report.md: what was found, then how to repeat it, settings, versions and files; see `write_report`.

    Args:
      workdir: of the job.
      title: heading.
      parts: what was found, paragraphs of Markdown.
      command, config, timings, files: see `write_report`.

    Returns:
      The path of report.md.
    """
    paragraphs = [
        f"# {title}",
        *parts,
        "## How to repeat it",
        f"```\n{command}\n```",
        "| stage | time |\n|:--|--:|\n" + _rows({**timings, "all": sum(timings.values())}, duration),
        "## Settings",
        "| key | value |\n|:--|:--|\n" + _rows(config, lambda value: f"`{value}`"),
        "## Versions",
        "| package | version |\n|:--|:--|\n" + _rows(versions(), str),
        "## Files",
        "\n".join(f"- [{name}](<{name}>): {what}" for name, what in files.items()),
    ]
    path = workdir / "report.md"
    path.write_text("\n\n".join(paragraphs) + "\n", "utf-8")
    return path


def attempt(title: str, make: Callable[[], Sequence[str]]) -> list[str]:
    """Return the paragraphs of a section, or why there are none: no picture may lose what was measured.

    >>> attempt("Mistakes", lambda: [1 / 0])
    ['## Mistakes', '`Mistakes cannot be shown: ZeroDivisionError: division by zero`']
    """
    try:
        return list(make())
    except Exception as error:
        said = f"{title} cannot be shown: {type(error).__name__}: {error}"
        print(said, file=sys.stderr)
        return [f"## {title}", "`" + " ".join(said.replace("`", "'").split()) + "`"]


def picture(name: str, caption: str) -> str:
    """Return a picture with its caption in Markdown.

    >>> print(picture("a.png", "all"))
    ![all](<a.png>)
    <BLANKLINE>
    *all*
    """
    caption = re.sub(r"([\\\[\]*`])", r"\\\1", caption)
    return f"![{caption}](<{name}>)\n\n*{caption}*"


def _rows(values: Mapping[str, Any], show: Any) -> str:
    return "\n".join(f"| {name} | {show(value).replace('|', chr(92) + '|')} |" for name, value in values.items())


def _group_section(groups: Mapping[str, Any]) -> list[str]:
    """Return the paragraphs on task groups from the content of grouping.json."""

    def spell(partition: Sequence[Sequence[str]]) -> str:
        return "; ".join(" + ".join(group) for group in partition)

    lines = [
        f"- groups: **{spell(groups['groups'])}**",
        f"- similarity `{groups['similarity']}` over {groups['snapshots']} gradient snapshots, objective "
        f"`{groups['rule']['objective']}`, solver {groups['solver']}",
    ]
    if groups["runner_up"]:
        score, margin = groups["score"], groups["margin"]
        lines.append(f"- score {score:.4g}; runner-up {spell(groups['runner_up'])}, behind by {margin:.3g}")
    if groups.get("stability") is not None:
        lines.append(f"- the same groups in {100 * groups['stability']:.0f} % of bootstrap resamples of the snapshots")
    conflicts = np.array(groups["matrices"]["conflict_rate"])
    worst = np.unravel_index(conflicts.argmax(), conflicts.shape)
    if conflicts[worst] > 0:
        one, two = (groups["tasks"][index] for index in worst)
        lines.append(f"- most frequent conflict: {one} and {two}, in {100 * conflicts[worst]:.0f} % of the snapshots")
    elif len(conflicts) > 1:
        lines.append("- no two tasks' gradients conflict in any snapshot")
    return ["## Task groups", "\n".join(lines)]
