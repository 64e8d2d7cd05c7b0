"""Any prepared TFDS image classification data sets, one task each, read without tensorflow."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow_datasets as tfds

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.data import fewshot, images
from jax_promptmtl.data.source import Example, Subset, Suite, Task
from jax_promptmtl.data.suites.folder import MEGAPIXELS, reading


class TfdsSource:
    """One split of a prepared data set; images stay encoded until asked for.

    Args:
      builder: a prepared builder.
      split: its split, slices such as "train[:80%]" included.
      image, label: names of the two features.
      classes: names of the classes to keep; a label is a position among them.
      reading: what decoding has to decide.
    """

    def __init__(
        self, builder: Any, split: str, image: str, label: str, classes: Sequence[str], reading: images.Reading
    ):
        known = builder.info.features[label].names
        self.image, self.label, self.classes, self.reading = image, label, classes, reading
        self.relabel = {known.index(name): i for i, name in enumerate(classes)}
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
        self.names = tuple(f"{builder.info.full_name}:{split}[{i:07d}]" for i in range(len(self.records)))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Example:
        record = self.records[index]
        image = images.decode(record[self.image], self.names[index], self.reading)
        return {"image": image, "label": self.relabel[int(record[self.label])]}

    def members(self) -> dict[str, list[str]]:
        """Read all labels, without decoding an image, and return {class: names of its records}."""
        found: dict[str, list[str]] = {name: [] for name in self.classes}
        for name, record in zip(self.names, self.records, strict=True):
            label = self.relabel.get(int(record[self.label]))
            if label is not None:
                found[self.classes[label]].append(name)
        return found

    def subset(self, names: Iterable[str], where: str) -> Subset:
        """Return the records of these names; `where` says who names them."""
        number = {name: index for index, name in enumerate(self.names)}
        names = list(names)
        if strange := [name for name in names if name not in number]:
            raise UserError(f"Record {strange[0]!r} of the {where} is not in the prepared data; draw the split anew.")
        return Subset(self, tuple(number[name] for name in names))


def build(
    *,
    names: Sequence[str],
    classes: Sequence[str] = (),
    shots: int = 0,
    seed: int = 0,
    data_dir: str = "",
    train_split: str = "train",
    test_split: str = "test",
    image: str = "image",
    label: str = "label",
    manifest: str = "",
    background: str = images.PLAIN.background,
    exif: bool = images.PLAIN.exif,
    megapixels: float = MEGAPIXELS,
) -> Suite:
    """Build a suite of prepared data sets.

    Args:
      names: TFDS names such as "domainnet/real", one task each.
      classes: names of the classes to keep, in the order of the labels; empty for all.
      shots: training images per class; 0 for all.
      seed: draws the shots.
      data_dir: the TFDS folder; empty for TFDS's own default.
      train_split, test_split: names of the splits.
      image, label: names of the features.
      manifest: the split's file, read if it exists, else written; empty draws anew, which reads every record.
      background, exif, megapixels: see `folder.build`.

    Returns:
      A suite of one task per name.

    Raises:
      UserError: a data set is unknown, not prepared, or lacks a feature, class or split.
    """
    if not names:
        raise UserError("The tfds suite has no data sets; set `names` to one or more TFDS names, one task each.")
    opened = {name: _builder(name, data_dir) for name in names}
    kept = {name: _classes(builder, name, classes, image, label) for name, builder in opened.items()}
    how = reading(background, exif, megapixels)
    halves = {
        half: {name: TfdsSource(builder, split, image, label, kept[name], how) for name, builder in opened.items()}
        for half, split in (("train", train_split), ("test", test_split))
    }

    def draw() -> fewshot.Split:
        learn, held_out = ({name: source.members() for name, source in halves[h].items()} for h in ("train", "test"))
        return fewshot.split(learn, shots=shots or sys.maxsize, seed=seed, held_out=held_out)

    about = {"shots": shots, "seed": seed, "classes": fewshot.digest(kept)[:12]}
    split, sha256 = fewshot.pin(manifest, draw, **about)
    where, tasks = f"split {manifest!r}", []
    for name in names:
        chosen = split[pick(name, split, f"task of the {where}")].values()
        train, test = (
            halves[h][name].subset((record for c in chosen for record in c[h]), where) for h in ("train", "test")
        )
        tasks.append(Task(name, tuple(c.replace("_", " ") for c in kept[name]), train, test))
    return Suite("tfds", tuple(tasks), sha256, reading=how)


def _classes(builder: Any, name: str, classes: Sequence[str], image: str, label: str) -> list[str]:
    """Return the classes to keep, after a look whether the features and classes are there."""
    for feature in (image, label):
        pick(feature, builder.info.features, f"feature of TFDS data set {name!r}")
    known = builder.info.features[label].names
    return [pick(c, known, f"class of TFDS data set {name!r}") for c in classes or known]


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
