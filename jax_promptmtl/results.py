"""What a tuning job leaves to read: the table, the report with its pictures, and its answers per test image."""

import shlex
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_promptmtl import records, tree, webpage, words
from jax_promptmtl.data import predictions
from jax_promptmtl.data.source import Suite
from jax_promptmtl.engine import figures, report, writer
from jax_promptmtl.typeset import Cell, Sheet, markdown

Counts = Mapping[str, np.ndarray]
EXAMPLES = "figures/examples.png"
MISTAKES = 4  # of each task in the table
NEAREST = 3  # words of each prompt
WORDS = """Cosines of the learned tokens of the first layer with the embeddings of whole words. The nearest word of a \
random direction has {level:.2f} on average: near that, the words mean nothing."""


def publish(job: Any, counts: Mapping[str, Counts], outcome: Any, learned: Mapping[str, Any] | None) -> None:
    """Print the table, and write the report with its pictures.

    Args:
      job: `tune.Job`.
      counts: {model: `tune.Outcome.counts`}, of the backbone as it is, then of the trained model.
      outcome: `tune.Outcome`.
      learned: content of grouping.json, or `None` where no groups were learned.
    """
    before = next(iter(counts.values()))
    record = report.results(
        job.tasks,
        before["count"].tolist(),
        {name: count["correct"].tolist() for name, count in counts.items()},
        trainable=outcome.trainable,
        total=outcome.total,
    )
    record |= {"split_hash": job.suite.split_hash, "left_out": job.suite.left_out} | answers(job.suite, outcome.counts)
    pictures = draw_results(job, counts)
    if learned:
        pictures |= {
            "figures/similarity.png": "Similarity of the tasks' gradients; groups are framed.",
            "figures/similarity_epochs.png": "The same per epoch of the global prompts.",
            "figures/partitions.png": "The best partitions of the tasks.",
        }
    path = report.write_report(
        job.workdir,
        title=f"{job.config.title} on {job.suite.name}",
        command=typed(),
        record=record,
        config=tree.flatten(job.config.to_dict()),
        timings=job.seconds,
        groups=learned,
        pictures=pictures,
        sections=[*confusion_section(job, outcome.counts), *words_section(job, outcome)],
        files={name: text for name, text in FILES.items() if (job.workdir / name).exists()},
    )
    first, last = (count["prediction"] for count in counts.values())
    rows = predictions.examples(job.suite, first, last)
    page = webpage.write(path, {EXAMPLES: webpage.gallery(rows, *counts)})
    seconds = report.duration(sum(job.seconds.values()))
    print(f"\n{report.table(record)}\n\n{path} has the pictures, {page.name} all in one file; {seconds} in all.")


def typed() -> str:
    """Return what was typed to start this run."""
    return shlex.join(["python", "-m", "jax_promptmtl.main", *sys.argv[1:]])


def answers(suite: Suite, counts: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return what a comparison of runs needs of one: which test images were answered right, and which they are."""
    return {
        "right": records.pack_bits(counts["prediction"] == counts["label"]),
        "drawing": records.pack_numbers(predictions.drawings(suite)),
        "test_hash": predictions.test_hash(suite),
    }


FILES = {
    "config.json": "the resolved config",
    "metrics.jsonl": "loss and accuracy of every log step",
    "tensorboard": "the same for TensorBoard",
    "grouping.json": "similarities, groups and how sure they are",
    "checkpoints": "trained parameters, for resuming and evaluation",
    "results.json": "the table as data",
}


def draw_results(job: Any, counts: Mapping[str, Counts]) -> dict[str, str]:
    """Draw training curves, test examples and gains per class; return {path: caption}."""
    folder = job.workdir / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    before, after = (count["prediction"] for count in counts.values())
    names, gains = predictions.gains(job.suite, next(iter(counts.values()))["label"], before, after)
    figures.example_grid(job.workdir / EXAMPLES, predictions.examples(job.suite, before, after), *counts)
    figures.class_gains(folder / "classes.png", names, gains, "gain over zero-shot, points")
    pictures = {
        EXAMPLES: "Test images that the two models see differently, then others.",
        "figures/classes.png": "Gain of each class over zero-shot, all tasks together.",
    }
    lines = list(writer.read(job.workdir / "metrics.jsonl"))
    if lines:
        figures.curves(folder / "curves.png", lines)
        pictures["figures/curves.png"] = "Loss and accuracy on the training batches."
    return pictures


def confusion_section(job: Any, counts: Counts) -> list[str]:
    """Draw what each task's test images were taken for; return the paragraphs with the most frequent mistakes."""
    parts, lines = [], []
    matrices = predictions.confusions(job.suite, counts["label"], counts["prediction"])
    for number, (task, matrix) in enumerate(zip(job.suite.tasks, matrices, strict=True)):
        name, classes = f"figures/confusion_{number}.png", task.class_names
        figures.confusion(job.workdir / name, classes, matrix, task.name)
        parts.append(report.picture(name, f"{task.name}: what the test images of each class were taken for."))
        for mistake in predictions.name_mistakes(classes, matrix, MISTAKES):
            lines.append([Cell(text) for text in (task.name, *mistake)])
    table = [markdown(Sheet(("task", "class", "taken for", "images"), lines, words=3))] if lines else []
    return ["## Mistakes", *table, *parts]


def words_section(job: Any, outcome: Any) -> list[str]:
    """Return the paragraphs on the words nearest to the text prompts; none where a method has no such prompts."""
    if outcome.problem is None:
        return []
    per_task = outcome.problem.expand(outcome.params)["method"]
    prompts = words.prompts(job.config.method, job.backbone.config, per_task)
    if prompts is None:
        return []
    vocabulary = words.vocabulary(job.backbone.tokenizer, job.backbone.params["text"]["token"]["embedding"])
    level = words.chance(vocabulary)
    groups = dict(zip(job.tasks, prompts, strict=True))
    if np.ptp(prompts, axis=0).max() == 0:
        groups = {"all tasks": prompts[0]}
    columns = [[spell(row) for row in words.nearest(rows, vocabulary, NEAREST)] for rows in groups.values()]
    lines = [[Cell(str(number)), *map(Cell, row)] for number, row in enumerate(zip(*columns, strict=True), 1)]
    table = markdown(Sheet(("token", *groups), lines, words=1 + len(groups)))
    return ["## Words nearest to the text prompts", WORDS.format(level=level), table]


def spell(found: list[tuple[str, float]]) -> str:
    """Return words with their cosines as text.

    >>> spell([("up", 0.8), ("right", 0.6)])
    'up 0.80, right 0.60'
    """
    return ", ".join(f"{word} {cosine:.2f}" for word, cosine in found)
