"""What a tuning job leaves to read: the table, the report with its pictures, and its answers per test image."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.data import predictions
from jax_promptmtl.data.source import Suite
from jax_promptmtl.engine import writer
from jax_promptmtl.inference import attention, words
from jax_promptmtl.reporting import figures, page, records, webpage
from jax_promptmtl.reporting.typeset import Cell, Sheet, markdown

Counts = Mapping[str, np.ndarray]
Rows = Sequence[Mapping[str, Any]]
EXAMPLES, GAZE = "figures/examples.png", "figures/gaze.png"
LOOKS = 3  # examples of each task
MISTAKES = 4  # of each task in the table
NEAREST = 3  # words of each prompt
WORDS = """Cosines of the learned tokens of the first layer with the embeddings of whole words. The nearest word of a \
random direction has {level:.2f} on average: near that, the words mean nothing."""
LOOKING = """The attention of the class token to the patches in the last block, mean over heads: the image, {before}, \
{after}. It glows where that is high, each picture on its own scale. Of the attention {first:.0f} % goes to patches \
with {before} and {second:.0f} % with {after}, the rest to the class token itself and to prompts. It says where the \
tower looks, not why it answers as it does."""


def publish(job: Any, counts: Mapping[str, Counts], outcome: Any, learned: Mapping[str, Any] | None) -> None:
    """Write the results, print the table, then write the report with its pictures.

    Args:
      job: `tune.Job`.
      counts: {model: `tune.Outcome.counts`}, of the backbone as it is, then of the trained model.
      outcome: `tune.Outcome`.
      learned: content of grouping.json, or `None` where no groups were learned.
    """
    before = next(iter(counts.values()))
    record = page.results(
        job.tasks,
        before["count"].tolist(),
        {name: count["correct"].tolist() for name, count in counts.items()},
        trainable=outcome.trainable,
        total=outcome.total,
    )
    record |= {"split_hash": job.suite.split_hash, "left_out": job.suite.left_out} | answers(job.suite, outcome.counts)
    page.write_results(job.workdir, record, command=typed(), timings=job.seconds)
    print(f"\n{page.table(record)}\n", flush=True)
    pictures = draw_results(job, counts)
    if learned:
        pictures |= {
            "figures/similarity.png": "Similarity of the tasks' gradients; groups are framed.",
            "figures/similarity_epochs.png": "The same per epoch of the global prompts.",
            "figures/partitions.png": "The best partitions of the tasks.",
        }
    first, last = (count["prediction"] for count in counts.values())
    rows = predictions.examples(job.suite, first, last)
    panels = {EXAMPLES: webpage.gallery(rows, *counts)}
    looks = page.attempt("Where the image tower looks", lambda: gaze_section(job, outcome, rows, list(counts), panels))
    path = page.write_report(
        job.workdir,
        title=f"{job.config.title} on {job.suite.name}",
        command=typed(),
        record=record,
        config=tree.flatten(job.config.to_dict()),
        timings=job.seconds,
        groups=learned,
        pictures=pictures,
        sections=[*looks, *confusion_section(job, outcome.counts), *words_section(job, outcome)],
        files={name: text for name, text in FILES.items() if (job.workdir / name).exists()},
    )
    html = webpage.write(path, panels)
    seconds = page.duration(sum(job.seconds.values()))
    print(f"{path} has the pictures, {html.name} all in one file; {seconds} in all.")


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
        parts.append(page.picture(name, f"{task.name}: what the test images of each class were taken for."))
        for mistake in predictions.name_mistakes(classes, matrix, MISTAKES):
            lines.append([Cell(text) for text in (task.name, *mistake)])
    table = [markdown(Sheet(("task", "class", "taken for", "images"), lines, words=3))] if lines else []
    return ["## Mistakes", *table, *parts]


def gaze_section(job: Any, outcome: Any, rows: Rows, names: Sequence[str], panels: dict[str, str]) -> list[str]:
    """Draw where the class token looks in a few examples; nothing where training leaves the image tower as it is.

    Args:
      job: `tune.Job`.
      outcome: `tune.Outcome`.
      rows: as of `figures.example_grid`, one per task.
      names: of the two models.
      panels: gets what stands in the place of the picture on the page.
    """
    if outcome.problem is None or outcome.problem.takes_features:
        return []
    per_task, sizes = outcome.problem.expand(outcome.params), job.backbone.config
    prompts = words.tokens(job.config.method, sizes, per_task["method"], "image")
    weights = tree.merge(per_task["backbone"], outcome.problem.frozen["backbone"])
    towers: tuple = (job.backbone.params, {}), (weights, prompts)
    found = [glance(job, towers, task, row) for task, row in enumerate(rows)]
    shown = [row for row, _ in found]
    figures.example_grid(job.workdir / GAZE, shown, *names, cell=(2.9, 1.6))
    panels[GAZE] = webpage.gallery(shown, *names, strips=True)
    first, second = np.mean([shares for _, shares in found], axis=0)
    said = LOOKING.format(before=names[0], after=names[1], first=first, second=second)
    return ["## Where the image tower looks", said, page.picture(GAZE, f"The image, {names[0]}, {names[1]}.")]


def glance(job: Any, towers: Sequence[tuple], task: int, row: Mapping[str, Any]) -> tuple[dict[str, Any], list[float]]:
    """Return some examples of a task with the maps of two towers beside each, and how much of it all patches have.

    Args:
      job: `tune.Job`.
      towers: weights of the backbone and prompts of its image tower, layer -> float[T, P, D], of each.
      task: number of the task.
      row: its examples, as of `figures.example_grid`.

    Returns:
      The row with other images, and the percent of the attention that goes to patches, one number per tower.
    """
    some = {key: values if key == "task" else values[:LOOKS] for key, values in row.items()}
    image = np.stack([job.preprocess.evaluate(picture) for picture in some["images"]])
    numbers = np.full(len(image), task)
    maps = [np.asarray(attention.attention(job.backbone.config, *tower, image, numbers)) for tower in towers]
    plain = job.preprocess.shown(image)
    strips = [attention.strip(picture, each) for picture, *each in zip(plain, *maps, strict=True)]
    return some | {"images": strips}, [100 * float(seen.sum(axis=(1, 2)).mean()) for seen in maps]


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
