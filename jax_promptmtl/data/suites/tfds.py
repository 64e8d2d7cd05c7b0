"""Any prepared TFDS image classification data sets, one task each, read without tensorflow."""

from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

from jax_promptmtl.data import fewshot, images
from jax_promptmtl.data.source import Example, Subset, Suite, Task
from jax_promptmtl.errors import UserError, pick


class TfdsSource:
    """One split of a prepared data set; images stay encoded until asked for.

    Args:
      builder: a prepared builder.
      split: its split, slices such as "train[:80%]" included.
      image, label: names of the two features.
    """

    def __init__(self, builder: Any, split: str, image: str, label: str):
        self.image, self.label = image, label
        self.prefix = f"{builder.info.full_name}:{split}"
        try:
            self.records = builder.as_data_source(split=split, decoders={image: tfds.decode.SkipDecoding()})
        except NotImplementedError as error:
            raise UserError(
                f"TFDS data set {builder.info.full_name!r} cannot be read by record number ({error}); prepare it again "
                "with file_format='array_record'."
            ) from None
        except ValueError as error:
            raise UserError(
                f"TFDS data set {builder.info.full_name!r} has no split {split!r}; legal values: "
                f"{', '.join(builder.info.splits)} and slices of them ({error})."
            ) from None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.prefix}[{i:07d}]" for i in range(len(self)))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Example:
        record = self.records[index]
        name = f"{self.prefix}[{index:07d}]"
        return {"image": images.decode(record[self.image], name), "label": int(record[self.label])}

    def labels(self) -> list[int]:
        """Read all labels without decoding an image."""
        return [int(record[self.label]) for record in self.records]


def build(
    *,
    names: Sequence[str],
    shots: int = 0,
    seed: int = 0,
    data_dir: str = "",
    train_split: str = "train",
    test_split: str = "test",
    image: str = "image",
    label: str = "label",
) -> Suite:
    """Build a suite of prepared data sets.

    Args:
      names: TFDS names such as "domainnet/real", one task each.
      shots: training images per class; 0 for all.
      seed: draws the shots.
      data_dir: the TFDS folder; empty for TFDS's own default.
      train_split, test_split: names of the splits.
      image, label: names of the features.

    Returns:
      A suite of one task per name.

    Raises:
      UserError: a data set is unknown, not prepared, or lacks a feature or split.
    """
    if not names:
        raise UserError("The tfds suite has no data sets; set `names` to one or more TFDS names, one task each.")
    tasks, chosen = [], {}
    for name in names:
        builder = _builder(name, data_dir)
        for feature in (image, label):
            pick(feature, builder.info.features, f"feature of TFDS data set {name!r}")
        classes = tuple(c.replace("_", " ") for c in builder.info.features[label].names)
        train = TfdsSource(builder, train_split, image, label)
        indices = _shots(train, name, shots, seed) if shots else range(len(train))
        tasks.append(Task(name, classes, Subset(train, indices), TfdsSource(builder, test_split, image, label)))
        chosen[name] = [builder.info.full_name, train_split, test_split, list(indices)]
    return Suite("tfds", tuple(tasks), fewshot.digest(chosen))


def _builder(name: str, data_dir: str) -> Any:
    """Return a prepared builder."""
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"Unknown TFDS data set {name!r} ({first}); use a name of the TFDS catalogue.") from None
    if not builder.data_path.exists():
        raise UserError(
            f"TFDS data set {name!r} is not prepared in {str(builder.data_path)!r}; prepare it with "
            "file_format='array_record', or set `data_dir`."
        )
    return builder


def _shots(source: TfdsSource, task: str, shots: int, seed: int) -> list[int]:
    """Choose nested shots per class; records have no names of their own, so their numbers stand for them."""
    members: dict[int, list[str]] = {}
    for index, label in enumerate(source.labels()):
        members.setdefault(label, []).append(f"{index:09d}")
    chosen = []
    for label in sorted(members):
        queue = fewshot.order(members[label], seed=seed, task=task, class_name=str(label))
        chosen += [int(index) for index in queue[:shots]]
    return chosen
