"""What predictions on the test images of a suite say: per task, per class, per image and per drawing."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jax_promptmtl.data import fewshot
from jax_promptmtl.data.source import Suite


def cut(suite: Suite, values: np.ndarray) -> list[np.ndarray]:
    """Cut values of all test images, task after task, into one array per task."""
    return np.split(np.asarray(values), np.cumsum([len(task.test) for task in suite.tasks])[:-1])


def examples(suite: Suite, before: np.ndarray, after: np.ndarray, most: int = 8) -> list[dict[str, Any]]:
    """Choose test images of each task, those whose prediction changed first, evenly over the test set.

    Args:
      suite: T tasks.
      before, after: int[all test images], the class numbers that two models predict.
      most: images per task.

    Returns:
      T rows for `figures.example_grid`.
    """
    rows = []
    for task, old, new in zip(suite.tasks, cut(suite, before), cut(suite, after), strict=True):
        chosen = choose(old, new, most)
        items = [task.test[int(i)] for i in chosen]
        rows.append(
            {
                "task": task.name,
                "images": [item["image"] for item in items],
                "labels": [task.class_names[item["label"]] for item in items],
                "before": [task.class_names[old[i]] for i in chosen],
                "after": [task.class_names[new[i]] for i in chosen],
            }
        )
    return rows


def choose(before: np.ndarray, after: np.ndarray, most: int) -> list[int]:
    """Return the numbers of up to `most` examples, those whose prediction changed first, evenly over the test set.

    >>> choose(np.array([0, 0, 0, 0, 0]), np.array([0, 1, 0, 0, 2]), 4)
    [1, 4, 0, 3]
    """
    changed, same = np.flatnonzero(before != after), np.flatnonzero(before == after)
    share = min(len(changed), most * 3 // 4)
    return [*map(int, spread(changed, share)), *map(int, spread(same, most - share))]


def spread(numbers: np.ndarray, count: int) -> np.ndarray:
    """Return `count` of the numbers, evenly spaced.

    >>> spread(np.arange(10), 3).tolist()
    [0, 4, 9]
    """
    result: np.ndarray = numbers[np.linspace(0, len(numbers) - 1, min(count, len(numbers))).astype(int)]
    return result


def gains(suite: Suite, label: np.ndarray, before: np.ndarray, after: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return class names and their gains in points over all test images with that name.

    Args:
      suite: T tasks, whose class lists may differ.
      label, before, after: int[all test images], the class numbers that are true and that two models predict.
    """
    truth, *spelled = (spell(suite, values) for values in (label, before, after))
    names = sorted(set(truth.tolist()))
    right = [[(guess == truth)[truth == name].mean() for name in names] for guess in spelled]
    return names, 100 * (np.array(right[1]) - np.array(right[0]))


def confusions(suite: Suite, label: np.ndarray, prediction: np.ndarray) -> list[np.ndarray]:
    """Return int[C, C] per task: how many test images of a class (row) were taken for which (column).

    Args:
      suite: T tasks.
      label, prediction: int[all test images].
    """
    matrices = []
    for task, truth, guess in zip(suite.tasks, cut(suite, label), cut(suite, prediction), strict=True):
        matrices.append(confusion(truth, guess, len(task.class_names)))
    return matrices


def confusion(label: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Return int[C, C]: how many examples of a class (row) were taken for which (column).

    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    matrix = np.zeros((classes, classes), int)
    np.add.at(matrix, (label, prediction), 1)
    return matrix


def mistakes(matrix: np.ndarray, most: int) -> list[tuple[int, int]]:
    """Return the (class, what it was taken for) of the most frequent mistakes, of equal ones the first.

    >>> mistakes(np.array([[5, 1, 0], [3, 9, 1], [0, 0, 9]]), 2)
    [(1, 0), (0, 1)]
    """
    wrong = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [(int(place) // len(matrix), int(place) % len(matrix)) for place in order]
    return [pair for pair in pairs if wrong[pair]]


def name_mistakes(classes: Sequence[str], matrix: np.ndarray, most: int) -> list[tuple[str, str, str]]:
    """Return the most frequent mistakes in words: the class, what it was taken for, and how often.

    >>> name_mistakes(["cat", "dog"], np.array([[5, 1], [0, 9]]), 3)
    [('cat', 'dog', '1 of 6')]
    """
    found = mistakes(matrix, most)
    return [(classes[one], classes[two], f"{matrix[one, two]} of {matrix[one].sum()}") for one, two in found]


def spell(suite: Suite, values: np.ndarray) -> np.ndarray:
    """Return class numbers of all test images as class names."""
    parts = zip(suite.tasks, cut(suite, values), strict=True)
    return np.concatenate([np.array(task.class_names)[part] for task, part in parts])


def drawings(suite: Suite) -> np.ndarray:
    """Return which drawing each test image shows, int[all test images], numbered in order of first appearance.

    Pictures of one drawing are no independent test images. A name says in brackets what it is a picture of, such as
    "line/car/test/03 (lucide:car)"; an image without brackets is a drawing of its own.
    """
    names = [f"{task.name}/{drawing(name)}" for task in suite.tasks for name in task.test.names]
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names])


def test_hash(suite: Suite) -> str:
    """Return the sha256 of which images are tested, in their order; runs with equal ones can be compared in pairs."""
    return fewshot.digest([[task.name, list(task.test.names)] for task in suite.tasks])


def drawing(name: str) -> str:
    """Return what an example is a picture of.

    >>> drawing("line/car/test/03 (lucide:car)"), drawing("oil/cat/0 (1).png")
    ('lucide:car', 'oil/cat/0 (1).png')
    """
    return name[name.rindex("(") + 1 : -1] if name.endswith(")") and "(" in name else name
