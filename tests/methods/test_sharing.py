"""Slots and their expansion: which task reads what, and that the transpose sums the gradients of a slot's tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.methods import sharing

GROUPS = [[1, 3], [0], [4, 2]]


def test_group_slots_are_the_positions_of_the_groups():
    vector = sharing.group_slots(GROUPS)
    assert all(task in GROUPS[slot] for task, slot in enumerate(vector))
    assert vector.tolist() == [1, 0, 2, 0, 2]


@pytest.mark.parametrize(("kind", "expected"), [("all", [0] * 5), ("task", list(range(5))), ("group", [1, 0, 2, 0, 2])])
def test_the_three_kinds(kind, expected):
    assert sharing.slots(kind, 5, GROUPS).tolist() == expected


def test_an_unknown_kind_is_an_error():
    with pytest.raises(UserError, match=r"Unknown sharing 'groups'; legal values: all, group, task\. Did you mean"):
        sharing.slots("groups", 5, GROUPS)


@pytest.fixture
def shared():
    """Return parameters in slots, their vectors, and the loop that expand stands for."""
    rng = np.random.default_rng(0)
    vectors = {"group": sharing.slots("group", 5, GROUPS), "task": sharing.slots("task", 5, GROUPS)}
    vectors |= {"all": sharing.slots("all", 5, GROUPS)}
    slots = {name: vector.max() + 1 for name, vector in vectors.items()}
    params = {
        name: {"source": rng.normal(size=(s, 2, 3)).astype(np.float32), "text": rng.normal(size=(s, 4))}
        for name, s in slots.items()
    }
    return jax.tree.map(jnp.asarray, params), vectors


def test_every_task_reads_its_slot(shared):
    params, vectors = shared
    per_task = sharing.expand(params, vectors)
    for name, vector in vectors.items():
        for leaf in ("source", "text"):
            for task in range(5):
                np.testing.assert_array_equal(per_task[name][leaf][task], params[name][leaf][vector[task]])


def test_the_transpose_sums_over_the_tasks_of_a_slot(shared):
    params, vectors = shared
    per_task, collapse = jax.vjp(lambda params: sharing.expand(params, vectors), params)
    rng = np.random.default_rng(1)
    gradients = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), per_task)
    (collapsed,) = collapse(gradients)
    for name, vector in vectors.items():
        for leaf, rows in gradients[name].items():
            sums = np.zeros(params[name][leaf].shape)
            for task in range(5):
                sums[vector[task]] += rows[task]
            np.testing.assert_allclose(collapsed[name][leaf], sums, rtol=1e-6, atol=1e-6)


def test_without_subtrees_nothing_is_expanded():
    assert sharing.expand({}, {}) == {}
