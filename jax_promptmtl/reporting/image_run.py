"""Sections specific to the page of an image run: accuracies, groups, attention maps, nearest words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jax_promptmtl.reporting import figures
from jax_promptmtl.reporting.evaluation import Evaluation, evaluation_sheet, parameters_text
from jax_promptmtl.reporting.examples import Examples
from jax_promptmtl.reporting.formatting import format_groups
from jax_promptmtl.reporting.page import Page
from jax_promptmtl.reporting.run_page import add_examples
from jax_promptmtl.reporting.typeset import Cell, Sheet

ATTENTION = """The attention of the class token to the patches in the last block, mean over heads: the image, \
{before}, {after}. It glows where that is high, each picture on its own scale. Of the attention {first:.0f} % goes to \
patches with {before} and {second:.0f} % with {after}, the rest to the class token itself and to prompts. It says \
where the tower looks, not why it answers as it does."""
WORDS = """Cosines of the learned tokens of the first layer with the embeddings of whole words. The nearest word of a \
random direction has {level:.2f} on average: near that, the words mean nothing."""


@dataclass(frozen=True)
class AttentionMaps:
    """Attention maps of two image towers.

    Attributes:
      rows: of examples, one per task; each image stands beside its map of either tower.
      shares: percent of the class token's attention on patches, per tower.
    """

    rows: Sequence[Examples]
    shares: tuple[float, float]


@dataclass(frozen=True)
class NearestWords:
    """The words nearest to P prompts.

    Attributes:
      columns: {task or "all tasks": per prompt, the nearest words with their cosines}.
      level: mean cosine of a random direction with its nearest word.
    """

    columns: Mapping[str, Sequence[Sequence[tuple[str, float]]]]
    level: float


def add_evaluation(page: Page, record: Evaluation) -> None:
    """Add the accuracies of an evaluation."""
    page.say("## Result")
    page.say("Accuracy in percent on every test image; the average is over tasks, the gain in percentage points.")
    page.show(evaluation_sheet(record))
    page.say(parameters_text(record).capitalize())


def add_grouping(page: Page, content: Mapping[str, Any]) -> None:
    """Add the task groups and their stability, from the content of grouping.json."""
    lines = [
        f"- groups: **{format_groups(content['groups'])}**",
        f"- similarity `{content['similarity']}` over {content['snapshots']} gradient snapshots, objective "
        f"`{content['rule']['objective']}`, solver {content['solver']}",
    ]
    if content["runner_up"]:
        score, margin, second = content["score"], content["margin"], format_groups(content["runner_up"])
        lines.append(f"- score {score:.4g}; runner-up {second}, behind by {margin:.3g}")
    if content.get("stability") is not None:
        lines.append(f"- the same groups in {100 * content['stability']:.0f} % of bootstrap resamples of the snapshots")
    lines += _conflicts(content["tasks"], np.array(content["matrices"]["conflict_rate"]))
    page.say("## Task groups", "\n".join(lines))


def _conflicts(tasks: Sequence[str], rates: np.ndarray) -> list[str]:
    """Return the line on the tasks whose gradients conflict most often."""
    worst = np.unravel_index(rates.argmax(), rates.shape)
    if rates[worst] > 0:
        one, two = (tasks[int(index)] for index in worst)
        return [f"- most frequent conflict: {one} and {two}, in {100 * rates[worst]:.0f} % of the snapshots"]
    return ["- no two tasks' gradients conflict in any snapshot"] if len(rates) > 1 else []


def add_class_gains(page: Page, classes: Sequence[str], gains: np.ndarray) -> None:
    """Add the gain of every class over zero-shot, float[C] in points."""
    path = page.picture("classes.png", "Gain of each class over zero-shot, all tasks together.")
    figures.class_gains(path, classes, gains, "gain over zero-shot, points")


def add_loss_curves(page: Page, lines: Sequence[Mapping[str, Any]]) -> None:
    """Add loss and accuracy of the training from the lines of metrics.jsonl, if there are any."""
    if lines:
        figures.curves(page.picture("curves.png", "Loss and accuracy on the training batches."), lines)


def add_similarities(page: Page) -> None:
    """Add the figures of task grouping."""
    page.picture("similarity.png", "Similarity of the tasks' gradients; groups are framed.")
    page.picture("similarity_epochs.png", "The same per epoch of the global prompts.")
    page.picture("partitions.png", "The best partitions of the tasks.")


def add_attention(page: Page, found: AttentionMaps | None, models: tuple[str, str]) -> None:
    """Add the attention maps; nothing where training does not change the image tower."""
    if found is None:
        return
    (before, after), (first, second) = models, found.shares
    page.say("## Where the image tower looks")
    page.say(ATTENTION.format(before=before, after=after, first=first, second=second))
    add_examples(page, found.rows, models, f"The image, {before}, {after}.", name="gaze.png", strips=(2.9, 1.6))


def add_words(page: Page, found: NearestWords | None) -> None:
    """Add the words nearest to the text prompts; nothing where a method has no such prompts."""
    if found is None:
        return
    columns = [[_words_text(row) for row in rows] for rows in found.columns.values()]
    lines = [[Cell(str(number)), *map(Cell, row)] for number, row in enumerate(zip(*columns, strict=True), 1)]
    page.say("## Words nearest to the text prompts", WORDS.format(level=found.level))
    page.show(Sheet(("token", *found.columns), lines, words=1 + len(found.columns)))


def _words_text(found: Sequence[tuple[str, float]]) -> str:
    """Return words with their cosines.

    >>> _words_text([("up", 0.8), ("right", 0.6)])
    'up 0.80, right 0.60'
    """
    return ", ".join(f"{word} {cosine:.2f}" for word, cosine in found)
