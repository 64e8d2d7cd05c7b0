"""Sources, subsets and their union."""

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.source import ArraySource, Subset, Task, Union


def source(labels):
    labels = np.array(labels, np.int32)
    images = np.broadcast_to(labels[:, None, None, None], (len(labels), 2, 2, 3)).astype(np.uint8)
    return ArraySource(images, labels, tuple(f"picture {i}" for i in range(len(labels))))


def test_union_counts_through_the_tasks():
    a, b = source([0, 1, 2]), source([3, 4])
    tasks = [Task("a", tuple("vwxyz"), a, b), Task("b", tuple("vwxyz"), b, a)]
    union = Union(tasks, "train")
    assert [(union[i]["task"], union[i]["label"]) for i in range(len(union))] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 3),
        (1, 4),
    ]
    assert [Union(tasks, "test")[i]["task"] for i in range(5)] == [0, 0, 1, 1, 1]


def test_subset_keeps_order_and_names():
    subset = Subset(source([5, 6, 7]), (2, 0))
    assert [subset[i]["label"] for i in range(2)] == [7, 5] and subset.names == ("picture 2", "picture 0")


@pytest.mark.parametrize("label", [-1, 2])
def test_label_outside_its_class_list_is_one_sentence(label):
    union = Union([Task("a", ("x", "y"), source([0, label]), source([0]))], "train")
    assert union[0]["label"] == 0
    with pytest.raises(
        UserError, match=f"Label {label} of 'picture 1' in task 'a' is outside its class list; .* 0 to 1"
    ):
        union[1]


def test_empty_task_is_one_sentence():
    with pytest.raises(UserError, match="Task 'a' has no train images"):
        Union([Task("a", ("x",), source([]), source([0]))], "train")
