"""The batch stream is a function of (seed, step), and evaluation counts every example once."""

import itertools
import multiprocessing
import os
import signal
from collections import Counter

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.preprocess import Preprocess
from jax_promptmtl.data.sampler import Order, batches, evaluation_batches, example_names
from jax_promptmtl.data.source import ArraySource, Suite, Task

SIZES = (30, 12, 6)
PREPROCESS = Preprocess(8, mean=(0, 0, 0), std=(1 / 255,) * 3)


def make(offset, count):
    """Pictures whose left half tells their number, so that flips and crops can be told from the order."""
    images = np.zeros((count, 8, 8, 3), np.uint8)
    images[..., 0] = (offset + np.arange(count))[:, None, None]
    images[..., 1] = np.arange(8) * 30
    return ArraySource(images, np.arange(count) % 3, tuple(f"{offset + i}" for i in range(count)))


SUITE = Suite(
    "toy", tuple(Task(f"t{i}", ("a", "b", "c"), make(70 * i, n), make(70 * i + 35, n)) for i, n in enumerate(SIZES)), ""
)
STILL = Preprocess(8, mean=(0, 0, 0), std=(1 / 255,) * 3, scale=(1, 1), ratio=(1, 1), flip=0)


def take(steps, preprocess=PREPROCESS, **options):
    rest = {key: options.pop(key) for key in ("start_step", "train", "workers") if key in options}
    order = Order(**({"batch_size": 12, "seed": 5} | options))
    return list(itertools.islice(batches(SUITE, preprocess, order, **rest), steps))


def assert_equal(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def identities(batch):
    return np.round(batch["image"][:, 0, 0, 0]).astype(int)


def test_keys_shapes_and_types():
    batch = take(1)[0]
    assert {key: (value.shape, value.dtype.name) for key, value in batch.items()} == {
        "image": ((12, 8, 8, 3), "float32"),
        "label": ((12,), "int32"),
        "task": ((12,), "int32"),
        "weight": ((12,), "float32"),
    }


@pytest.mark.parametrize("kind", ["union", "stratified"])
def test_same_seed_same_stream_other_seed_another(kind):
    assert_equal(take(6, kind=kind), take(6, kind=kind))
    assert not np.array_equal(identities(take(1, kind=kind)[0]), identities(take(1, kind=kind, seed=6)[0]))


@pytest.mark.parametrize("kind", ["union", "stratified"])
@pytest.mark.parametrize("start", [1, 4, 9])  # an epoch of the union has 4 steps
def test_resume_is_a_slice_within_and_after_the_first_epoch(kind, start):
    assert_equal(take(12, kind=kind)[start:], take(12 - start, kind=kind, start_step=start))


@pytest.mark.parametrize("kind", ["union", "stratified"])
@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_global_batch(kind, count):
    whole = take(5, kind=kind)
    parts = [take(5, kind=kind, process_index=i, process_count=count) for i in range(count)]
    for step, batch in enumerate(whole):
        for key, value in batch.items():
            merged = np.concatenate([part[step][key] for part in parts])
            np.testing.assert_array_equal(merged, value)


@pytest.mark.parametrize("kind", ["union", "stratified"])
def test_names_are_those_of_the_examples_in_the_batch(kind):
    for step, batch in enumerate(take(5, STILL, kind=kind)):
        names = example_names(SUITE, step, Order(12, 5, kind))
        assert names == [f"{n} of t{t}" for n, t in zip(identities(batch), batch["task"], strict=True)]
    part = example_names(SUITE, 4, Order(12, 5, kind, process_index=1, process_count=2))
    assert part == names[6:]


def test_worker_processes_change_nothing_and_outlast_signals():
    stream = batches(SUITE, PREPROCESS, Order(12, 5), workers=1)
    assert_equal([next(stream)], take(1))
    (worker,) = multiprocessing.active_children()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):  # as srun and a terminal send them to all
        os.kill(worker.pid, number)
    assert_equal(list(itertools.islice(stream, 30)), take(31)[1:])
    assert worker.is_alive()
    stream.close()
    assert not worker.is_alive()


def test_union_takes_every_example_once_per_epoch_and_reshuffles():
    epochs = [np.concatenate([identities(b) for b in part]) for part in np.split(np.array(take(12, STILL)), 3)]
    everything = sorted(70 * i + j for i, n in enumerate(SIZES) for j in range(n))
    assert all(sorted(epoch) == everything for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_stratified_batches_hold_every_task_equally():
    stream = take(9, STILL, kind="stratified")
    assert all(np.bincount(batch["task"]).tolist() == [4, 4, 4] for batch in stream)
    seen = np.concatenate([identities(b)[b["task"] == 1] for b in stream[:3]])
    assert sorted(seen) == list(range(70, 82))  # 12 examples in 3 steps: an epoch of this task


def test_tasks_labels_and_pictures_belong_together():
    for batch in take(4, STILL):
        number = identities(batch)
        np.testing.assert_array_equal(batch["task"], number // 70)
        np.testing.assert_array_equal(batch["label"], number % 70 % 3)


@pytest.mark.parametrize(
    "kind,reduction,total", [("union", "mean", 1), ("stratified", "mean", 1), ("stratified", "sum_of_task_means", 3)]
)
def test_weights_express_the_reduction(kind, reduction, total):
    batch = take(1, kind=kind, reduction=reduction)[0]
    np.testing.assert_allclose(batch["weight"].sum(), total, rtol=1e-6)
    if kind == "stratified":
        np.testing.assert_allclose(np.bincount(batch["task"], batch["weight"]), [total / 3] * 3, rtol=1e-6)


def test_augmentation_depends_on_the_epoch():
    stream = np.array(take(8))
    first, second = (
        {i: x for b in part for i, x in zip(identities(b), b["image"], strict=True)} for part in np.split(stream, 2)
    )
    changed = [not np.array_equal(first[i], second[i]) for i in first]
    assert np.mean(changed) > 0.8


def test_without_training_nothing_is_augmented():
    for batch in take(2, train=False):
        for number, image in zip(identities(batch), batch["image"], strict=True):
            np.testing.assert_allclose(image[0, :, 1], np.arange(8) * 30, atol=1e-3)
            assert np.ptp(image[..., 0]) == 0 and round(float(image[0, 0, 0])) == number


@pytest.mark.parametrize("batch_size,count", [(12, 1), (12, 2), (20, 4), (100, 4), (16, 8)])
def test_evaluation_counts_every_example_once(batch_size, count):
    seen, lengths = Counter(), set()
    for index in range(count):
        part = list(
            evaluation_batches(SUITE, PREPROCESS, batch_size=batch_size, process_index=index, process_count=count)
        )
        lengths.add(len(part))
        for batch in part:
            assert batch["image"].shape == (batch_size // count, 8, 8, 3)
            assert set(batch["weight"]) <= {0, 1}
            seen.update(identities(batch)[batch["weight"] > 0].tolist())
    assert seen == Counter(70 * i + 35 + j for i, n in enumerate(SIZES) for j in range(n))
    assert lengths == {-(-sum(SIZES) // batch_size)}


def test_evaluation_can_read_the_training_half():
    parts = evaluation_batches(SUITE, PREPROCESS, batch_size=16, split="train")
    assert sum(identities(b)[b["weight"] > 0].tolist().count(0) for b in parts) == 1


@pytest.mark.parametrize(
    "options,message",
    [
        ({"kind": "random"}, "Unknown sampler 'random'"),
        ({"reduction": "sum"}, "Unknown reduction 'sum'"),
        ({"kind": "stratified", "batch_size": 8}, "Batch size 8 is not a positive multiple of the 3 tasks"),
        ({"process_count": 5}, "Batch size 12 is not a positive multiple of the 5 processes"),
        ({"batch_size": 0}, "Batch size 0"),
        ({"seed": -1}, "Seed -1 of the data order is negative"),
        ({"reduction": "sum_of_task_means"}, "needs sampler 'stratified'"),
    ],
)
def test_bad_options_are_one_sentence(options, message):
    with pytest.raises(UserError, match=message) as error:
        take(1, **options)
    assert "\n" not in str(error.value)


def test_a_bad_label_stops_the_stream_with_the_users_error():
    task = Task("t", ("a",), make(0, 12), make(0, 12))
    with pytest.raises(UserError, match=r"Label [12] of '.*' in task 't' is outside its class list"):
        next(batches(Suite("toy", (task,), ""), STILL, Order(12, 0)))
