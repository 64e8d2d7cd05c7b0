"""The model card: a README.md beside every checkpoint, on its content and use."""

import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import jax_promptmtl
from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.files import write_whole
from jax_promptmtl.reporting.typeset import Cell, Sheet, markdown

SHOWN = 12  # class names per task


def write_card(
    folder: pathlib.Path,
    *,
    title: str,
    about: Mapping[str, Any],
    params: Any,
    config: Mapping[str, Any],
    counts: Mapping[str, Sequence[int]] | None = None,
    use: bool = True,
) -> pathlib.Path:
    """Write the card of the checkpoints in a folder.

    Args:
      folder: of the checkpoints, such as runs/mmap/checkpoints/train.
      title: what was trained.
      about: metadata of the checkpoints; see `Problem.about`.
      params: the trained tree.
      config: of the training; see `tune.plan`.
      counts: `correct` int[T] and `count` int[T] on the test images, if they were measured.
      use: whether the checkpoints are for prediction.

    Returns:
      The path of the card.
    """
    path = folder / "README.md"
    workdir = folder.parent.parent
    sections = [f"# {title}", WHAT.format(version=jax_promptmtl.__version__), _facts(about, params, config)]
    sections += ["## Tasks", markdown(_task_sheet(about, counts))]
    if use:
        task = next(iter(about["class_names"]))
        words = {"place": shlex.quote(str(workdir)), "option": shlex.quote(f"--task={task}")}
        sections += ["## How to use it", USE.format(workdir=workdir, task=task, **words)]
    try:
        write_whole(path, "\n\n".join(sections) + "\n")
    except OSError as error:
        raise UserError(f"Cannot write {str(path)!r}: {error.strerror}; give another --workdir.") from error
    return path


WHAT = """Made with jax_promptmtl {version}. The folders beside this file are checkpoints, one per number of steps: \
the trained parameters alone, checksums, and a description of all that belongs to them. The backbone is not inside."""
USE = """```bash
python -m jax_promptmtl.predict {place} {option} picture.png
python -m jax_promptmtl.export {place} --out=classifier
```

```python
import jax_promptmtl

answer = jax_promptmtl.load("{workdir}").predict(["picture.png"], task="{task}")
print(answer.labels, answer.probabilities)
```"""


def shape(pixels: Mapping[str, Any]) -> str:
    """Return how pictures are resized.

    >>> shape({"size": 224}), shape({"size": 224, "resize": "squash"})
    ('short side 224 px, centre crop', 'squashed to 224 px')
    """
    size, edge = pixels["size"], pixels.get("edge", 0) or pixels["size"]
    crop = "centre crop" if edge == size else f"centre crop of {size} px"
    ways = {"squash": f"squashed to {edge} px", "none": f"centre crop of {size} px", "longest": f"long side {edge} px"}
    words = ways.get(pixels.get("resize", ""), f"short side {edge} px, {crop}")
    return words if edge == size or "crop" in words else f"{words}, {crop}"


def told(pixels: Mapping[str, Any]) -> str:
    """Return the other options of preprocessing."""
    shown = ("size", "mean", "std", "resize", "edge")
    return "".join(f", {key.replace('_', ' ')} {value}" for key, value in pixels.items() if key not in shown)


def _facts(about: Mapping[str, Any], params: Any, config: Mapping[str, Any]) -> str:
    """Return the facts common to all tasks, as a Markdown list."""
    backbone, pixels, names = about["backbone"], about["preprocess"], list(about["class_names"])
    groups = "; ".join(" + ".join(names[task] for task in group) for group in about["groups"])
    shared = ", ".join(f"{name} per {kind}" for name, kind in config["sharing"].items()) or "nothing but the backbone"
    return "\n".join(
        [
            f"- backbone: `{backbone['name']}`, activation {backbone['activation']}, sha256 `{backbone['sha256']}`",
            f"- method: `{config['method']['name']}`, {shared}; {tree.count(params):,} trained parameters",
            *([f"- tuned weights: `{', '.join(config['tune'])}`"] if config["tune"] else []),
            f"- groups of tasks: {groups}",
            f"- training: {config['steps']:,} steps of {config['batch_size']} images, seed {config['seed']}",
            f"- class texts: `{about['template']}`",
            f"- images: RGB, {shape(pixels)}, mean {list(pixels['mean'])}, std {list(pixels['std'])}" + told(pixels),
            f"- data: split `{about['split_hash']}`",
        ]
    )


def _task_sheet(about: Mapping[str, Any], counts: Mapping[str, Sequence[int]] | None) -> Sheet:
    """Return the tasks with their classes, and accuracies if they were measured."""
    header = ["task", "classes"]
    lines: list[list[Cell]] = []
    for task, names in about["class_names"].items():
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        lines.append([Cell(task), Cell(f"{len(names)}: {', '.join(names[:SHOWN])}{more}")])
    if counts is not None:
        header += ["test images", "accuracy, %"]
        for line, right, all_ in zip(lines, counts["correct"], counts["count"], strict=True):
            line += [Cell(f"{all_:,}"), Cell(f"{100 * right / all_:.1f}")]
    return Sheet(header, lines, words=2)
