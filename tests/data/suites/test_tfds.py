"""Any prepared TFDS data set, here one made on the spot without tensorflow."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import suites
from jax_promptmtl.data.preprocess import Preprocess
from jax_promptmtl.data.sampler import evaluation_batches
from jax_promptmtl.data.suites import domainnet126
from jax_promptmtl.data.suites.tfds import TfdsSource


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    """Ten grey pictures per class."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        label = tfds.features.ClassLabel(names=["round_thing", "square"])
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({"image": image, "label": label})
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0), "test": self._generate_examples(100)}

    def _generate_examples(self, first):
        for i in range(20):
            yield i, {"image": Image.new("RGB", (6, 5), (first + i,) * 3), "label": i % 2}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("tfds"))
    TinyShapes(data_dir=path, file_format="array_record").download_and_prepare()
    return path


def build(data_dir, **options):
    return suites.build({"name": "tfds", "names": ("tiny_shapes",), "data_dir": data_dir} | options)


def test_reads_all_of_a_prepared_data_set(data_dir):
    task = build(data_dir).tasks[0]
    assert (task.name, task.class_names) == ("tiny_shapes", ("round thing", "square"))
    for source, first in ((task.train, 0), (task.test, 100)):
        examples = [source[i] for i in range(len(source))]
        greys = sorted(int(e["image"][0, 0, 0]) for e in examples)
        assert greys == list(range(first, first + 20))
        assert all(e["label"] == e["image"][0, 0, 0] % 2 and e["image"].shape == (5, 6, 3) for e in examples)


def test_shots_are_nested_and_balanced(data_dir):
    few, more = (build(data_dir, shots=k).tasks[0].train for k in (2, 5))
    assert set(few.names) < set(more.names)
    assert np.bincount([more[i]["label"] for i in range(len(more))]).tolist() == [5, 5]
    assert build(data_dir, shots=2).split_hash != build(data_dir, shots=2, seed=1).split_hash


def test_slices_are_splits(data_dir):
    task = build(data_dir, train_split="train[:50%]", test_split="train[50%:]").tasks[0]
    assert len(task.train) == len(task.test) == 10
    suite = build(data_dir)
    assert sum(b["weight"].sum() for b in evaluation_batches(suite, Preprocess(4), batch_size=8)) == 20


def test_keeps_the_named_classes_in_the_named_order(data_dir):
    task = build(data_dir, classes=("square",), shots=3).tasks[0]
    assert task.class_names == ("square",) and (len(task.train), len(task.test)) == (3, 10)
    examples = [task.test[i] for i in range(10)]
    assert sorted(int(e["image"][0, 0, 0]) for e in examples) == list(range(101, 120, 2))  # the odd ones are squares
    assert {e["label"] for e in examples} == {0}
    turned = build(data_dir, classes=("square", "round_thing")).tasks[0]
    assert turned.class_names == ("square", "round thing") and len(turned.train) == 20
    for i in range(20):
        assert turned.train[i]["label"] == 1 - turned.train[i]["image"][0, 0, 0] % 2


def test_a_manifest_keeps_the_split_and_spares_reading_the_labels(data_dir, tmp_path, monkeypatch):
    options = {"classes": ("square",), "shots": 3, "manifest": str(tmp_path / "split.json")}
    drawn, kept = build(data_dir, **options), build(data_dir, **(options | {"manifest": ""}))
    assert drawn.split_hash == kept.split_hash
    monkeypatch.setattr(TfdsSource, "members", None)
    read = build(data_dir, **options)
    assert read.split_hash == drawn.split_hash
    assert [h.names for h in (read.tasks[0].train, read.tasks[0].test)] == [
        h.names for h in (kept.tasks[0].train, kept.tasks[0].test)
    ]
    with pytest.raises(UserError, match="has seed=0, but the config asks for seed=1"):
        build(data_dir, **(options | {"seed": 1}))
    with pytest.raises(UserError, match=r"split\.json' has classes="):
        build(data_dir, **(options | {"classes": ("round_thing",)}))


def test_a_manifest_of_other_records_is_refused(data_dir, tmp_path):
    options = {"shots": 3, "manifest": str(tmp_path / "split.json")}
    build(data_dir, train_split="train[:50%]", **options)
    with pytest.raises(UserError, match=r"Record 'tiny_shapes/1.0.0:train\[:50%\]\[.*is not in the prepared data"):
        build(data_dir, **options)


class TinyDomains(tfds.core.GeneratorBasedBuilder):
    """Three classes in two domains."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="real"), tfds.core.BuilderConfig(name="sketch"))
    CLASSES = ("cat", "The_Wall", "zebra")

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        label = tfds.features.ClassLabel(names=list(self.CLASSES))
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({"image": image, "label": label})
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "test": self._generate_examples()}

    def _generate_examples(self):
        for i in range(12):
            yield i, {"image": Image.new("RGB", (3, 3), (i % 3,) * 3), "label": i % 3}


def test_domainnet126_is_cut_out_and_bears_its_own_name(tmp_path):
    names = ("tiny_domains/real", "tiny_domains/sketch")
    for name in names:
        config = name.split("/")[1]
        TinyDomains(config=config, data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    suite = domainnet126.suite(names, ("The_Wall", "zebra"), shots=2, seed=0, data_dir=str(tmp_path), manifest="")
    assert suite.name == "domainnet126-tfds" and [task.name for task in suite.tasks] == ["real", "sketch"]
    for task in suite.tasks:
        assert task.class_names == ("The Wall", "zebra") and (len(task.train), len(task.test)) == (4, 8)
        assert all(task.test[i]["label"] == task.test[i]["image"][0, 0, 0] - 1 for i in range(8))


def test_the_126_classes_are_classes_of_domainnet(tmp_path):
    known = tfds.builder("domainnet/real", data_dir=str(tmp_path)).info.features["label"].names
    assert len(known) == 345 and len(set(domainnet126.CLASSES) & set(known)) == 126 == len(domainnet126.CLASSES)
    with pytest.raises(UserError, match="TFDS data set 'domainnet/clipart' is not prepared"):
        suites.build({"name": "domainnet126", "data_dir": str(tmp_path)})


@pytest.mark.parametrize(
    "options,message",
    [
        ({"classes": ("cube",)}, "Unknown class of TFDS data set 'tiny_shapes' 'cube'; legal values: round_thing, sq"),
        ({"names": ("no_such_data",)}, "Unknown TFDS data set 'no_such_data'"),
        ({"data_dir": "/nowhere"}, "TFDS data set 'tiny_shapes' is not prepared in '/nowhere"),
        ({"image": "picture"}, "Unknown feature of TFDS data set 'tiny_shapes' 'picture'; legal values: image, label"),
        ({"test_split": "validation"}, "has no split 'validation'; legal values: .*train"),
    ],
)
def test_mistakes_are_one_sentence(data_dir, options, message):
    with pytest.raises(UserError, match=message) as error:
        build(**({"data_dir": data_dir} | options))
    assert "\n" not in str(error.value)
