"""Batches whose content is a pure function of (seed, step), for any number of processes and workers.

A step names its examples by arithmetic on one permutation per epoch, so a resume is a slice of the endless sequence of
steps and no iterator state is ever saved. (grain's own endless shuffle gives the same promise, but at 0.8 ms an example
it costs ten times as much as reading and augmenting a small picture.)
"""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.data.order import ORDERS, places
from jax_promptmtl.data.preprocess import Preprocess
from jax_promptmtl.data.source import Example, Suite, Union

Batch = dict[str, np.ndarray]
ENDLESS = 2**48  # steps


@dataclass(frozen=True)
class Order:
    """How the training examples of a suite follow one another, and which of them this process reads.

    Attributes:
      batch_size: B, examples per global batch.
      seed: fixes order and augmentation.
      kind: "union" shuffles all tasks together (Dassl's random sampler over the union); "stratified" has the same
        number of examples of every task in every batch and shuffles each task by itself.
      reduction: "mean" weighs every example 1 / B; "sum_of_task_means" weighs it 1 / b_t, where b_t is the number of
        its task in the batch, and needs "stratified".
      process_index, process_count: which part of the global batch is wanted.
    """

    batch_size: int
    seed: int
    kind: str = "union"
    reduction: str = "mean"
    process_index: int = 0
    process_count: int = 1

    def check(self, tasks: int) -> None:
        """Refuse what cannot be; see `batches`."""
        pick(self.kind, ("union", "stratified"), "sampler")
        pick(self.reduction, ("mean", "sum_of_task_means"), "reduction")
        _check_sizes(self.batch_size, self.process_count, tasks if self.kind == "stratified" else 1)
        if self.reduction == "sum_of_task_means" and self.kind == "union":
            raise UserError(
                "Reduction 'sum_of_task_means' needs sampler 'stratified'; with 'union' use reduction 'mean'."
            )
        if self.seed < 0:
            raise UserError(f"Seed {self.seed} of the data order is negative; use 0 or more.")


def example_names(suite: Suite, step: int, order: Order) -> list[str]:
    """Return `<name> of <task>` for the examples of a training batch; see `batches`."""
    union = Union(suite.tasks, "train")
    sizes = tuple(len(source) for source in union.sources)
    positions = places(step, order.batch_size, order.process_index, order.process_count)
    return [union.name(int(number)) for number in ORDERS[order.kind](positions, sizes, order.seed)]


@dataclass(frozen=True)
class _Steps:
    """The sequence of one process's batches; `order` "padded" is every example once, then padding of weight 0."""

    union: Union
    preprocess: Preprocess
    order: str
    seed: int
    weight: float
    train: bool
    batch_size: int
    process_index: int
    process_count: int
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, step: int) -> Batch:
        positions = places(step, self.batch_size, self.process_index, self.process_count)
        sizes = tuple(len(source) for source in self.union.sources)
        numbers = ORDERS[self.order](positions, sizes, self.seed)
        examples = [self._example(int(number), int(p)) for number, p in zip(numbers, positions, strict=True)]
        kind = "features" if "features" in examples[0] else "image"
        return {
            kind: np.stack([e[kind] for e in examples]),
            "label": np.array([e["label"] for e in examples], np.int32),
            "task": np.array([e["task"] for e in examples], np.int32),
            "weight": np.where(numbers < len(self.union), self.weight, 0).astype(np.float32),
        }

    def _example(self, number: int, position: int) -> Example:
        """Read an example and augment it with a generator that depends on (seed, position), or preprocess it."""
        example = self.union[number % len(self.union)]
        if "features" in example:
            return example
        if not self.train:
            return example | {"image": self.preprocess.evaluate(example["image"])}
        bits = np.random.Philox(key=self.seed, counter=[0, 0, 0, position])
        return example | {"image": self.preprocess.augment(example["image"], np.random.Generator(bits))}


def batches(
    suite: Suite, preprocess: Preprocess, order: Order, *, start_step: int = 0, train: bool = True, workers: int = 0
) -> Iterator[Batch]:
    """Yield this process's part of the training batches start_step, start_step + 1, ... without end.

    Args:
      suite: the tasks; their training sources are drawn without replacement within an epoch.
      preprocess: `augment` is used in training.
      order: of the examples.
      start_step: steps already taken.
      train: False leaves the augmentation out.
      workers: worker processes; 0 reads in threads.

    Yields:
      {image: float32[B / processes, h, w, 3], label: int32, task: int32, weight: float32}; of a suite of features
      {features: float[B / processes, E], ...}.

    Raises:
      UserError: the sizes do not divide, or a choice is unknown.
    """
    order.check(len(suite.tasks))
    steps = _Steps(
        union=Union(suite.tasks, "train"),
        preprocess=preprocess,
        order=order.kind,
        seed=order.seed,
        weight=(1 if order.reduction == "mean" else len(suite.tasks)) / order.batch_size,
        train=train,
        batch_size=order.batch_size,
        process_index=order.process_index,
        process_count=order.process_count,
        length=ENDLESS,
    )
    return _iterate(steps, workers, start_step)


def evaluation_batches(
    suite: Suite,
    preprocess: Preprocess,
    *,
    batch_size: int,
    split: str = "test",
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
) -> Iterator[Batch]:
    """Yield this process's part of all examples, task after task, each exactly once over all processes.

    Args:
      suite: the tasks.
      preprocess: `evaluate` is used.
      batch_size: B, examples per global batch; the last one is padded with examples of weight 0.
      split: "test" or "train".
      process_index, process_count: every process gets the same number of batches.
      workers: worker processes; 0 reads in threads.

    Yields:
      Batches as of `batches`, with weight 1 for every real example.
    """
    union = Union(suite.tasks, pick(split, ("train", "test"), "split"))
    _check_sizes(batch_size, process_count, 1)
    steps = _Steps(
        union=union,
        preprocess=preprocess,
        order="padded",
        seed=0,
        weight=1.0,
        train=False,
        batch_size=batch_size,
        process_index=process_index,
        process_count=process_count,
        length=-(-len(union) // batch_size),
    )
    return _iterate(steps, workers)


def _iterate(steps: _Steps, workers: int, start_step: int = 0) -> Iterator[Batch]:
    import grain  # only now: what reads no batches does not wait for it

    dataset = grain.MapDataset.source(steps)[start_step:]
    stream = dataset.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=8))
    if workers:
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers), worker_init_fn=outlast)
    return iter(stream)


def outlast(*_: int) -> None:
    """Let a worker process ignore the signals that stop a run while its parent lives, which saves first and ends it."""

    def ignore(*_: object) -> None:
        parent = multiprocessing.parent_process()
        if parent is None or not parent.is_alive():
            os._exit(1)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, ignore)


def _check_sizes(batch_size: int, process_count: int, tasks: int) -> None:
    for number, what in ((process_count, "processes"), (tasks, "tasks (sampler 'stratified')")):
        if batch_size < 1 or batch_size % number:
            raise UserError(
                f"Batch size {batch_size} is not a positive multiple of the {number} {what}; use such a multiple, for "
                f"example {max(1, round(batch_size / number)) * number}."
            )
