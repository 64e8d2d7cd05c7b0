"""Predictions from a checkpoint alone: equal to the evaluation of the training, for every kind of image and task."""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jax_promptmtl
from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import suites
from jax_promptmtl.engine import checkpoint
from jax_promptmtl.experiments.image import tune
from jax_promptmtl.inference import image_predictor
from jax_promptmtl.problems import clip_mtl
from tests.tiny import CLASSES, TASKS, save_clip
from tests.trained import make_config


@pytest.fixture(scope="module")
def model(home):
    return jax_promptmtl.load(home / "work")


def images_of(home, task):
    return sorted((home / "images" / task).rglob("*.png"))


def whole_problem(home):
    """Return the training's own problem of all tasks, and its trained parameters."""
    config = make_config(home)
    job = tune.prepare(config, home / "elsewhere")
    problem = job.problem(config, tune.check_groups(config.grouping.groups, job.tasks))
    return job, problem, checkpoint.read(home / "work" / "checkpoints" / "train")[0]


def evaluate(problem, params, batch):
    """Return the logits of a batch as the evaluation of a training computes them."""

    def logits(params, frozen, batch):
        return problem.predict(problem.prepare(problem.expand(params), frozen), frozen, batch)

    return jax.jit(logits)(params, problem.frozen, batch)


def test_logits_equal_those_of_the_whole_problem(home, model):
    job, problem, params = whole_problem(home)
    paths = [images_of(home, task)[i] for i, task in enumerate(TASKS)]
    pixels = np.stack([job.preprocess.evaluate(np.asarray(Image.open(path))) for path in paths])
    batch = {"image": jnp.asarray(pixels), "task": jnp.arange(len(TASKS))}
    expected = evaluate(problem, params, batch)
    found = np.concatenate([model.predict(path, task).logits for path, task in zip(paths, TASKS, strict=True)])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.1  # the tasks do not all say the same


def test_probabilities_are_the_softmax_and_labels_the_best(home, model):
    answer = model.predict(images_of(home, "oil"), task="oil")
    expected = jax.nn.softmax(answer.logits)
    np.testing.assert_allclose(answer.probabilities, expected, rtol=1e-5)
    assert answer.labels == [answer.classes[i] for i in np.argmax(expected, axis=1)]
    assert answer.classes == tuple(name.replace("_", " ") for name in CLASSES)
    ranked = answer.top(3)[0]
    assert ranked[0][0] == answer.labels[0] and sorted((p for _, p in ranked), reverse=True) == [p for _, p in ranked]


def test_every_kind_of_image_gives_the_same(home, model):
    path = images_of(home, "ink")[0]
    picture = Image.open(path)
    kinds = [str(path), path, path.read_bytes(), picture, np.asarray(picture)]
    logits = model.predict(kinds, "ink").logits
    np.testing.assert_allclose(logits, np.repeat(logits[:1], len(kinds), axis=0), atol=1e-5)
    np.testing.assert_allclose(model.predict(np.asarray(picture), "ink").logits, logits[:1], atol=1e-5)
    assert model.predict([], "ink").logits.shape == (0, len(CLASSES))


def test_many_images_go_in_batches_of_few_shapes(home, monkeypatch):
    monkeypatch.setattr(image_predictor, "BATCH", 4)
    fresh = jax_promptmtl.load(home / "work")
    paths = images_of(home, "pen")[:7]
    in_batches = fresh.predict(paths, "pen").logits
    single = np.concatenate([fresh.predict(path, "pen").logits for path in paths])
    np.testing.assert_allclose(in_batches, single, atol=1e-5)
    fresh.predict(paths, "wax")
    (compiled,) = fresh._compiled.values()
    assert compiled._cache_size() == 2  # batches of 4 and of 1, the same for both tasks


def test_new_classes_meet_the_learned_prompts(home, model):
    classes = ["cat", "fox dog"]
    zero = jax_promptmtl.load(home / "work", classes=classes)
    answer = zero.predict(images_of(home, "oil")[:2], "oil")
    assert answer.classes == tuple(classes)
    old = model.predict(images_of(home, "oil")[:2], "oil").logits
    np.testing.assert_allclose(answer.logits[:, 0], old[:, 0], atol=1e-5)  # "cat" is in both lists
    with pytest.raises(UserError, match="empty"):
        jax_promptmtl.load(home / "work", classes=["cat", " "])


@pytest.mark.parametrize("about", [{"name": "adapter", "sharing": {"image": "task"}}, {"name": "none"}], ids=str)
def test_other_methods_and_tuned_weights(home, about):
    config = make_config(home)
    about = dict(about)
    sharing, tuned = about.pop("sharing", {}), () if about["name"] != "none" else (".*/bias",)
    suite, backbone = suites.build(config.suite), model_backbone(home)
    options = {
        "method": about,
        "sharing": sharing,
        "tune": tuned,
        "template": "{}",
        "seed": 3,
        "groups": [[0, 1, 2, 3]],
    }
    problem = clip_mtl.build(suite, backbone, clip_mtl.Options(**options))
    meta = {"config": {key: options[key] for key in ("method", "sharing", "tune")}, "about": problem.about}
    trained = {path: np.asarray(x) + 0.1 for path, x in tree.flatten(problem.params).items() if x is not None}
    model = image_predictor.Predictor(meta, trained, backbone)
    pixels = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    params = jax.tree.map(lambda leaf: leaf + 0.1, problem.params)
    batch = {"image": jnp.asarray(pixels), "task": jnp.full(2, 2)}
    expected = evaluate(problem, params, batch)
    np.testing.assert_allclose(model.logits(pixels, "pen"), expected, atol=1e-4)


def model_backbone(home):
    return image_predictor.load_backbone(str(home / "clip"))


def test_a_folder_that_moved_needs_its_backbone(home, tmp_path):
    shutil.copytree(home / "work", tmp_path / "work")
    meta_path = next((tmp_path / "work" / "checkpoints" / "train").glob("*/meta/metadata"))
    text = meta_path.read_text()
    assert str(home) in text
    moved = tmp_path / "moved"
    shutil.copytree(home / "clip", moved)
    save_clip(tmp_path / "other", seed=7)
    assert image_predictor.load(tmp_path / "work", backbone=str(moved)).tasks == TASKS
    with pytest.raises(UserError, match=r"was trained on the backbone .*, not on .*other"):
        image_predictor.load(tmp_path / "work", backbone=str(tmp_path / "other"))
    with pytest.raises(UserError, match=r"cannot be loaded: No weights at .* --backbone=PATH"):
        image_predictor.load(tmp_path / "work", backbone=str(tmp_path / "gone"))


def test_checkpoints_from_before_tokenizer_and_dtype_were_kept(home, model):
    about = {**model.meta["about"], "backbone": dict(model.meta["about"]["backbone"])}
    del about["backbone"]["tokenizer"], about["backbone"]["dtype"]
    backbone = image_predictor.find_backbone(about["backbone"], None, pathlib.Path("work"))
    old = image_predictor.Predictor({**model.meta, "about": about}, model.trained, backbone)
    paths = images_of(home, "ink")[:2]
    np.testing.assert_array_equal(old.predict(paths, "ink").logits, model.predict(paths, "ink").logits)


def test_a_damaged_checkpoint_is_never_used(home, tmp_path):
    shutil.copytree(home / "work", tmp_path / "work")
    meta = next((tmp_path / "work" / "checkpoints" / "train").glob("*/meta/metadata"))
    meta.write_text(meta.read_text().replace('"template": "a {}"', '"template": "b {}"'))
    with pytest.raises(UserError, match="damaged"):
        image_predictor.load(tmp_path / "work")


def test_a_predictor_says_what_it_is(model):
    assert repr(model).startswith("Predictor of mmap on ") and "oil (" in repr(model)


def test_mistakes_are_one_sentence(home, model, tmp_path):
    path = images_of(home, "oil")[0]
    broken = tmp_path / "broken.png"
    broken.write_bytes(path.read_bytes()[:50])
    for image, words in (
        (broken, "broken.png"),
        (tmp_path / "none.png", "none.png"),
        (np.zeros((2, 3, 4), int), "uint8"),
    ):
        with pytest.raises(UserError, match=words):
            model.predict([image], "oil")
    with pytest.raises(UserError, match="ink, oil, pen, wax"):
        model.predict(path)
    with pytest.raises(UserError, match=r"'oli'.*'oil'"):
        model.predict(path, "oli")
    with pytest.raises(UserError, match="is a file; give the work directory of a training first"):
        image_predictor.load(path)
    with pytest.raises(UserError, match="no work directory"):
        image_predictor.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no trained prompts"):
        image_predictor.load(tmp_path)


def test_pictures_given_in_python_are_read_like_files(home, model, tmp_path):
    grey = np.random.default_rng(0).integers(0, 65536, (20, 24), np.uint16)
    clear = np.random.default_rng(1).integers(0, 256, (20, 24, 4), np.uint8)
    turned, exif = Image.fromarray(clear[..., :3]), Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(clear).save(tmp_path / "clear.png")
    for name, array in (("grey", grey), ("clear", clear), ("turned", None)):
        path = tmp_path / f"{name}.png"
        expected = model.pixels(path)
        with Image.open(path) as picture:
            np.testing.assert_array_equal(model.pixels(picture), expected)
        np.testing.assert_array_equal(model.pixels(path.read_bytes()), expected)
        if array is not None:
            np.testing.assert_array_equal(model.pixels(array), expected)
    assert model.preprocess.background == "white" and model.preprocess.exif


def test_a_checkpoint_without_the_keys_reads_pictures_as_it_did(model, home):
    about = dict(model.meta["about"])
    about["preprocess"] = {key: about["preprocess"][key] for key in ("size", "mean", "std")}
    old = image_predictor.Predictor({**model.meta, "about": about}, model.trained, model.backbone)
    clear = Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 24, 4), np.uint8))
    np.testing.assert_array_equal(old.pixels(clear), old.preprocess.evaluate(np.asarray(clear.convert("RGB"))))
