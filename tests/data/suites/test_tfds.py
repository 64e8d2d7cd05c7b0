"""Any prepared TFDS data set, here one made on the spot without tensorflow."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jax_promptmtl.data import suites
from jax_promptmtl.data.images import Preprocess
from jax_promptmtl.data.sampler import evaluation_batches
from jax_promptmtl.errors import UserError


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


@pytest.mark.parametrize(
    "options,message",
    [
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
