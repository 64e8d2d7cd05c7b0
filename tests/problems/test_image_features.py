"""Cached features of a frozen image tower: those of the plain model, and a training that cannot tell the difference."""

import jax
import numpy as np
import pytest

from configs import mmap
from jax_promptmtl.core import tree
from jax_promptmtl.data import suites
from jax_promptmtl.data.preprocess import Preprocess
from jax_promptmtl.experiments.image import tune
from jax_promptmtl.models.clip.load import load
from jax_promptmtl.problems import image_features
from tests.tiny import save_clip, save_images

HOW = image_features.Encoding(batch_size=16, workers=0, dtype="float32", mode="jit")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    save_clip(folder / "clip")
    save_images(folder / "images")
    return folder


def make_config(files, **augment):
    """Return a config of CoOp on tiny images."""
    config = mmap.get_config().unlock()
    config.backbone.path, config.evaluation_batch_size = str(files / "clip"), 16
    config.suite = {"name": "folder", "root": str(files / "images"), "shots": 2}
    config.method = {"name": "tokens", "std": 0.02, "length": {"text": 2}, "depth": {"text": 1}}
    config.sharing, config.grouping.source = {"text": "all"}, "one"
    config.train.epochs, config.train.batch_size = 2, 8
    config.augment.update(augment)
    return config.lock()


@pytest.mark.parametrize("split", ["train", "test"])
def test_features_are_those_of_each_image_alone(files, split):
    backbone = load(str(files / "clip"))
    suite = suites.build({"name": "folder", "root": str(files / "images"), "shots": 2})
    preprocess = Preprocess(**backbone.preprocess)
    encoded = image_features.encode_suite(suite, backbone, preprocess, split, HOW)
    encode = jax.jit(lambda image: backbone.model.apply({"params": backbone.params}, image, method="encode_image"))
    for before, after in zip(suite.tasks, encoded.tasks, strict=True):
        source, cached = getattr(before, split), getattr(after, split)
        assert len(source) == len(cached) and tuple(cached.names) == tuple(source.names)
        for i in range(len(source)):
            alone = encode(preprocess.evaluate(source[i]["image"])[None])[0]
            np.testing.assert_allclose(cached[i]["features"], alone, rtol=1e-5, atol=2e-5)
            assert cached[i]["label"] == source[i]["label"]
    other = "test" if split == "train" else "train"
    assert all(getattr(a, other) is getattr(b, other) for a, b in zip(suite.tasks, encoded.tasks, strict=True))


@pytest.mark.parametrize(("augment", "cached"), [({}, {"test"}), (dict(scale=(1, 1), ratio=(1, 1)), {"train", "test"})])
def test_training_from_features_equals_training_from_images(files, tmp_path, monkeypatch, augment, cached):
    config = make_config(files, **augment)
    job = tune.prepare(config, tmp_path / "features")
    problem = job.problem(config, tune.whole(job))
    fast = tune.train(job, problem, config, "train").params
    counts = job.evaluate(problem, fast)
    assert job.encoded.keys() == cached
    monkeypatch.setattr(tune.Job, "inputs", lambda job, problem, split: job.suite)
    plain = tune.prepare(config, tmp_path / "images")
    slow = tune.train(plain, problem, config, "train").params
    for path, leaf in tree.flatten(slow["method"]).items():
        np.testing.assert_allclose(tree.flatten(fast["method"])[path], leaf, rtol=1e-4, atol=1e-6)
        assert not np.array_equal(leaf, tree.flatten(problem.params["method"])[path])
    np.testing.assert_array_equal(counts["prediction"], plain.evaluate(problem, fast)["prediction"])


def test_prompts_for_images_need_images(files, tmp_path):
    config = make_config(files).unlock()
    config.method, config.sharing = {"name": "tokens", "length": {"image": 2}, "depth": {"image": 1}}, {"image": "all"}
    job = tune.prepare(config, tmp_path)
    assert job.inputs(job.problem(config, tune.whole(job)), "test") is job.suite
