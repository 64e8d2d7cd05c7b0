"""The report of a benchmark, from records alone: a page with figures, CSV and LaTeX; and console tables."""

import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.reporting import records, typeset
from jax_promptmtl.reporting.collect import collect_images, collect_videos
from jax_promptmtl.reporting.image_benchmark import add_image_benchmark
from jax_promptmtl.reporting.page import Page
from jax_promptmtl.reporting.rate_tables import rate_sheets
from jax_promptmtl.reporting.records import Record
from jax_promptmtl.reporting.score_tables import accuracy_sheet, video_score_sheet
from jax_promptmtl.reporting.video_benchmark import add_video_benchmark

CELL = ("id", "status", "suite", "shots", "method", "seed", "rate")
COSTS = ("trainable", "total", "steps", "step_seconds", "images_per_second", "peak_memory", "wall_seconds", "resumed")


def write_benchmark(place: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """Write report.md, report.html, report.tex, CSV files and figures for all records at a place.

    Args:
      place: a folder of runs or a file of records; see `records.read_all`.
      folder: of the report.

    Returns:
      Warnings on what was left out or is not comparable.

    Raises:
      UserError: no record can be read, or the folder cannot be written to.
    """
    found, ignored = records.read_all(place)
    if not found:
        one = place / "report.html"
        todo = f"the report of this one run is {str(one)!r}." if one.is_file() else "run the benchmark first."
        raise UserError(f"{str(place)!r} holds no record of a benchmark; {' '.join(ignored) or todo}")
    try:
        page = Page(folder)
        remarks = _compose(page, found, ignored)
        page.save()
        (folder / "report.tex").write_text("% needs the package booktabs\n" + "\n\n".join(page.tex) + "\n", "utf-8")
        _write_runs(page, found)
    except OSError as error:
        raise UserError(f"Cannot write to {str(folder)!r}: {error.strerror}; give another --out.") from error
    return remarks


def _compose(page: Page, found: list[Record], ignored: list[str]) -> list[str]:
    """Compose the whole page; returns its warnings, which precede the first table."""
    images, videos = _by_kind(found)
    page.say("# Benchmark", _about(found))
    place = len(page.parts)
    remarks = [*ignored, *add_image_benchmark(page, images), *add_video_benchmark(page, videos)]
    if remarks:
        page.parts.insert(place, "**To note**\n\n" + "\n".join(f"- {text}" for text in remarks))
    failed = [record for record in found if record["status"] == "failed"]
    if failed:
        lines = "\n".join(f"- {record['id']}: {record['error']}" for record in failed)
        page.say("## Failed runs", f"Not counted above.\n\n{lines}")
    return remarks


def _by_kind(found: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Return the records of images and those of videos."""
    images, videos = ([r for r in found if records.kind_of(r) == kind] for kind in ("images", "video"))
    return images, videos


def _about(found: Sequence[Record]) -> str:
    """Return what the records have in common."""
    done = [record for record in found if record["status"] == "done"]
    commits = Counter(describe_git(record.get("git")) for record in found)
    weights = {f"{r['backbone']['name']} ({r['backbone']['sha256'][:12]})" for r in found if "backbone" in r}
    weights |= {f"{task} ({sha[:12]})" for r in found for task, sha in r.get("weights", {}).items()}
    versions = sorted(
        {f"jax {r['versions']['jax']}, Python {r['versions']['python']}" for r in found if "versions" in r}
    )
    hours = sum(record.get("wall_seconds", 0) for record in found) / 3600
    return (
        f"{len(done)} runs done, {len(found) - len(done)} failed, {hours:.1f} hours of computing. "
        f"Frozen models: {', '.join(sorted(weights))}. {'; '.join(versions)}. "
        f"Code: {', '.join(f'{commit} ({number} runs)' for commit, number in commits.most_common())}."
    )


def describe_git(state: dict[str, Any] | None) -> str:
    """Describe the git state of a run.

    >>> describe_git({"commit": "0123456789abcdef", "dirty": True}), describe_git(None)
    ('0123456789 with changes', 'no repository')
    """
    return f"{state['commit'][:10]}{' with changes' if state['dirty'] else ''}" if state else "no repository"


def _write_runs(page: Page, found: Sequence[Record]) -> None:
    """Write one line per run and task."""
    lines = []
    for record in found:
        tasks = record.get("tasks", [record.get("task", "")])
        counted = zip(tasks, record.get("correct", [""]), record.get("count", [""]), strict=True)
        for row in counted:
            lines.append([*(record.get(key) for key in CELL), *row, *(record.get(key) for key in COSTS)])
    page.write_csv("runs.csv", [*CELL, "task", "correct", "count", *COSTS], lines)


def console_tables(found: Sequence[Record]) -> str:
    """Return all scores, learning-rate sweeps and warnings as text for a terminal."""
    images, videos = _by_kind(found)
    tables, remarks = collect_images(images)
    video, more = collect_videos(videos)
    parts = [f"{table.title}\n{typeset.console(accuracy_sheet(table))}" for table in tables]
    if video.rows:
        parts.append(typeset.console(video_score_sheet(video, video.rows, video.tasks, shares=True)))
    parts += [f"{name}, learning rates\n{typeset.console(sheet)}" for name, sheet in rate_sheets(found).items()]
    return "\n\n".join([*parts, *remarks, *more]) or "There is no finished run yet."
