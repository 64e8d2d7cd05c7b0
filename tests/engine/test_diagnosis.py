"""Whose fault it is when a loss is not finite."""

import numpy as np

from jax_promptmtl.engine.diagnosis import SHOWN, explain, suspects

TASKS = ("ink", "oil")


def make(**changes):
    batch = {"task": np.array([0, 1, 0, 1]), "weight": np.array([1.0, 1, 1, 0]), "image": np.zeros((4, 2, 2))}
    return batch | changes


def test_an_example_that_is_not_finite_itself_is_the_only_suspect():
    image = np.zeros((4, 2, 2))
    image[2, 1, 0] = np.inf
    image[3] = np.nan  # padding
    assert suspects(make(image=image), [np.nan, np.nan]).tolist() == [False, False, True, False]


def test_otherwise_the_examples_of_the_bad_tasks_and_otherwise_all_are_suspect():
    assert suspects(make(), [1.0, np.nan]).tolist() == [False, True, False, False]
    assert suspects(make(), [1.0, 2.0]).tolist() == [True, True, True, False]


def test_a_long_list_is_cut():
    size = SHOWN + 3
    batch = {"task": np.zeros(size, int), "weight": np.ones(size)}
    text = explain(batch, [np.nan, 0.0], TASKS, None)
    assert text.startswith("task ink, examples number 0 of the batch, ") and text.endswith(" and 3 more")
