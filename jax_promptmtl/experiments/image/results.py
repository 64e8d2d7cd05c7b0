"""What a tuning job leaves to read: it collects counts, examples, attention and words, and reporting writes them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.data import predictions
from jax_promptmtl.data.source import Suite
from jax_promptmtl.engine import writer
from jax_promptmtl.experiments.image.job import Job, Outcome
from jax_promptmtl.inference import attention, words
from jax_promptmtl.reporting import image_run, records, run_page
from jax_promptmtl.reporting.evaluation import console_evaluation, evaluation_record, write_results
from jax_promptmtl.reporting.examples import Examples
from jax_promptmtl.reporting.image_run import AttentionMaps, NearestWords
from jax_promptmtl.reporting.page import Page
from jax_promptmtl.reporting.run_page import Confusion, Provenance

Counts = Mapping[str, np.ndarray]  # of `Outcome`
SHOWN = 3  # examples of each task whose attention is shown
MISTAKES = 4  # of each task in the table
NEAREST = 3  # words of each prompt
FILES = {"results.json": "the numbers of this page, with counts", **run_page.RUN_FILES}


def publish(job: Job, counts: Mapping[str, Counts], outcome: Outcome, learned: Mapping[str, Any] | None) -> None:
    """Write the results, print the table, then write the report with its pictures.

    Args:
      job: what was run.
      counts: {model: counts}, of the backbone as it is, then of the trained model.
      outcome: of the trained model.
      learned: content of grouping.json, or `None` where no groups were learned.
    """
    before = next(iter(counts.values()))
    record = evaluation_record(
        job.tasks,
        before["count"].tolist(),
        {name: count["correct"].tolist() for name, count in counts.items()},
        trainable=outcome.trainable,
        total=outcome.total,
    )
    record |= {"split_hash": job.suite.split_hash, "left_out": job.suite.left_out} | answers(job.suite, outcome.counts)
    made = Provenance(run_page.typed_command(), tree.flatten(job.config.to_dict()), job.seconds, FILES)
    write_results(job.workdir, record, command=made.command, timings=made.timings)
    print(f"\n{console_evaluation(record)}\n", flush=True)
    page = Page(job.workdir)
    page.say(f"# {job.config.title} on {job.suite.name}")
    image_run.add_evaluation(page, record)
    if learned:
        image_run.add_grouping(page, learned)
    add_pictures(page, job, counts, outcome, grouped=bool(learned))
    print(run_page.finish_page(page, made))


def add_pictures(page: Page, job: Job, counts: Mapping[str, Counts], outcome: Outcome, *, grouped: bool) -> None:
    """Add pictures of the two models' answers, of the training and of the prompts; one that fails costs no other."""
    before, after = counts
    first, last = (count["prediction"] for count in counts.values())
    models, label = (before, after), outcome.counts["label"]
    rows = [Examples(**row) for row in predictions.examples(job.suite, first, last)]
    classes, gains = predictions.gains(job.suite, label, first, last)
    logged = list(writer.read(job.workdir / "metrics.jsonl"))
    caption = "Test images that the two models see differently, then others."
    page.say("## Pictures")
    page.attempt("Examples", lambda: run_page.add_examples(page, rows, models, caption))
    page.attempt("Gains per class", lambda: image_run.add_class_gains(page, classes, gains))
    page.attempt("Learning curves", lambda: image_run.add_loss_curves(page, logged))
    if grouped:
        image_run.add_similarities(page)
    page.attempt(
        "Where the image tower looks",
        lambda: image_run.add_attention(page, attention_maps(job, outcome, rows), models),
    )
    mistakes = partial(run_page.add_mistakes, titles="task", examples="images")
    page.attempt("Mistakes", lambda: mistakes(page, confusions(job.suite, outcome.counts)))
    page.attempt("Words nearest to the text prompts", lambda: image_run.add_words(page, nearest_words(job, outcome)))


def answers(suite: Suite, counts: Counts) -> dict[str, str]:
    """Return what a comparison of runs needs of one: which test images were answered right, and which they are."""
    return {
        "right": records.pack_bits(counts["prediction"] == counts["label"]),
        "drawing": records.pack_numbers(predictions.drawings(suite)),
        "test_hash": predictions.test_hash(suite),
    }


def confusions(suite: Suite, counts: Counts) -> list[Confusion]:
    """Return what each task's test images were taken for, with the most frequent mistakes."""
    matrices = predictions.confusions(suite, counts["label"], counts["prediction"])
    return [
        Confusion(task.name, names, matrix, predictions.name_mistakes(names, matrix, MISTAKES))
        for task, matrix in zip(suite.tasks, matrices, strict=True)
        for names in [task.class_names]
    ]


def attention_maps(job: Job, outcome: Outcome, rows: Sequence[Examples]) -> AttentionMaps | None:
    """Return where the class token looks in a few examples; `None` where training leaves the image tower as it is."""
    if outcome.problem is None or outcome.problem.takes_features:
        return None
    per_task, sizes = outcome.problem.expand(outcome.params), job.backbone.config
    prompts = words.tokens(job.config.method, sizes, per_task["method"], "image")
    weights = tree.merge(per_task["backbone"], outcome.problem.frozen["backbone"])
    towers: tuple = (job.backbone.params, {}), (weights, prompts)
    found = [attention_strips(job, towers, task, row) for task, row in enumerate(rows)]
    first, second = np.mean([shares for _, shares in found], axis=0)
    return AttentionMaps([row for row, _ in found], (first, second))


def attention_strips(job: Job, towers: Sequence[tuple], task: int, row: Examples) -> tuple[Examples, list[float]]:
    """Return some examples of a task with the maps of two towers beside each, and how much of it all patches have.

    Args:
      job: what was run.
      towers: weights of the backbone and prompts of its image tower, layer -> float[T, P, D], of each.
      task: number of the task.
      row: its examples.

    Returns:
      The row with other images, and the percent of the attention that goes to patches, one number per tower.
    """
    image = np.stack([job.preprocess.evaluate(picture) for picture in row.images[:SHOWN]])
    numbers = np.full(len(image), task)
    maps = [np.asarray(attention.attention(job.backbone.config, *tower, image, numbers)) for tower in towers]
    plain = job.preprocess.shown(image)
    strips = [attention.strip(picture, each) for picture, *each in zip(plain, *maps, strict=True)]
    names = (some[:SHOWN] for some in (row.labels, row.before, row.after))
    return Examples(row.task, strips, *names), [100 * float(seen.sum(axis=(1, 2)).mean()) for seen in maps]


def nearest_words(job: Job, outcome: Outcome) -> NearestWords | None:
    """Return the words nearest to the text prompts; `None` where a method has no such prompts."""
    if outcome.problem is None:
        return None
    per_task = outcome.problem.expand(outcome.params)["method"]
    prompts = words.prompts(job.config.method, job.backbone.config, per_task)
    if prompts is None:
        return None
    vocabulary = words.vocabulary(job.backbone.tokenizer, job.backbone.params["text"]["token"]["embedding"])
    groups = dict(zip(job.tasks, prompts, strict=True))
    if np.ptp(prompts, axis=0).max() == 0:
        groups = {"all tasks": prompts[0]}
    columns = {name: words.nearest(rows, vocabulary, NEAREST) for name, rows in groups.items()}
    return NearestWords(columns, words.chance(vocabulary))
