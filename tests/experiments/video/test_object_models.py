"""TransVOD and DVIS of full size: what each stage trains, what it starts from, what it learns."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.experiments.video import object_models
from jax_promptmtl.models.video import convert_dvis, convert_transvod, video_models
from jax_promptmtl.tasks import TASKS, video_object
from tests.experiments.video.test_finetune import preset, small

NORM = re.compile(r"(block_\d_\d+|stem)/.*(scale|bias)$")  # of the ResNet
SLOW = pytest.mark.slow
COUNTS = [  # all weights, those that train, heads that have one class more upstream, and upstream's number in millions
    pytest.param("imagenet_vid_single", 34_805_646, 34_530_126, 6, 34.81, marks=SLOW),
    ("imagenet_vid", 39_052_816, 4_247_170, 7, 39.05),
    pytest.param("youtube_vis_minvis", 44_013_097, 43_959_977, 0, 44.01, marks=SLOW),
    pytest.param("youtube_vis", 53_694_034, 9_680_937, 0, 53.69, marks=SLOW),
    ("youtube_vis_offline", 68_109_180, 14_415_146, 0, 68.11),
]


def shapes_of(name):
    config = preset(name)
    if name.startswith("imagenet_vid"):
        return config, convert_transvod.shapes(object_models.detector_sizes(30, config))
    return config, convert_dvis.shapes(object_models.segmenter_sizes(40, config))


@pytest.mark.parametrize(("name", "whole", "trained", "heads", "published"), COUNTS)
def test_full_size_models_have_the_published_numbers_of_weights(name, whole, trained, heads, published):
    config, shapes = shapes_of(name)
    mask = tree.trainable(shapes, config.tune)
    assert tree.count(shapes) == whole and tree.count(tree.partition(shapes, mask)[0]) == trained
    assert (whole + heads * 257) / 1e6 == pytest.approx(published, abs=0.005)
    assert not any(keep for path, keep in tree.flatten(mask).items() if NORM.search(path))


def test_recipes_have_what_upstreams_have():
    single, several = preset("imagenet_vid_single"), preset("imagenet_vid")
    lengths = [(config.train.batch_size, config.train.epochs) for config in (single, several)]
    assert lengths == [(32, 8), (8, 7)]
    for config in (single, several):
        optimizer = config.train.optimizer
        assert (optimizer.learning_rate, optimizer.weight_decay, optimizer.clip) == (2e-4, 1e-4, 0.1)
        assert (config.sampling.size, tuple(config.sampling.canvas), config.sampling.flip) == (600, (600, 1000), True)
    assert tuple(several.train.optimizer.drops) == (4 / 7, 6 / 7) and several.sampling.frames == 15
    stages = {name: preset(f"youtube_vis{name}") for name in ("_minvis", "", "_offline", "_tfds")}
    assert [config.sampling.frames for config in stages.values()] == [1, 5, 21, 5]
    assert [config.sampling.backwards for config in stages.values()] == [False, False, True, False]
    assert [config.tune[0] for config in stages.values()][1:] == ["tracker/.*", "refiner/.*", "tracker/.*"]
    optimizer = stages[""].train.optimizer
    assert (optimizer.learning_rate, optimizer.weight_decay, optimizer.clip) == (1e-4, 0.05, 0.01)
    assert tuple(optimizer.drops) == (0.7,)
    assert stages[""].points == 12544 and stages[""].sampling.tested == 36 and stages[""].guided == 0.5


def leaves(**shapes):
    return tree.unflatten(
        {path.replace("__", "/"): np.full(shape, float(i)) for i, (path, shape) in enumerate(shapes.items())}
    )


def test_a_stage_starts_from_the_one_before_and_keeps_what_is_new():
    drawn = leaves(detector__a=(2,), detector__classify_0__kernel=(3, 4), temporal__b=(2,))
    given = jax.tree.map(lambda leaf: leaf + 10, leaves(detector__a=(2,), detector__classify_0__kernel=(3, 4)))
    found = object_models.adopt(drawn, given, "file")
    assert found["detector"]["a"][0] == 10 and found["temporal"] == drawn["temporal"]
    assert object_models.adopt(drawn, {}, "") is drawn
    later = leaves(detector__a=(2,), detector__classify_0__kernel=(3, 4), tracker__c=(1,))
    assert object_models.adopt(drawn, later, "file").keys() == {"detector", "temporal"}
    with pytest.raises(UserError, match=r"'file' do not fit config\.model: detector/a has shape"):
        object_models.adopt(drawn, leaves(detector__a=(3,), detector__classify_0__kernel=(3, 4)), "file")
    with pytest.raises(UserError, match="-detector/classify_0/kernel"):
        object_models.adopt(drawn, leaves(detector__a=(2,)), "file")


def test_heads_for_other_classes_are_cut_or_drawn():
    drawn = leaves(detector__a=(2,), detector__classify_0__kernel=(3, 4))
    given = leaves(detector__a=(2,)) | {}
    given["detector"]["classify_0"] = {"kernel": np.arange(15.0).reshape(3, 5)}
    kernel = [object_models.adopt(drawn, given, "x", unused=n)["detector"]["classify_0"]["kernel"] for n in (0, 1)]
    np.testing.assert_array_equal(kernel[0], drawn["detector"]["classify_0"]["kernel"])
    np.testing.assert_array_equal(kernel[1], np.arange(15.0).reshape(3, 5)[:, 1:])


def test_weights_of_our_own_are_read_and_published_ones_converted(tmp_path):
    params = leaves(detector__a=(2,), detector__b=(1, 3))
    video_models.save(tmp_path, "imagenet_vid", params, {})
    path = tmp_path / "imagenet_vid.safetensors"
    jax.tree.map(np.testing.assert_array_equal, object_models.read(str(path), None), params)
    assert object_models.read("", None) == {} and object_models.read("other.pth", str.upper) == "OTHER.PTH"
    path.write_bytes(b"x")
    with pytest.raises(UserError, match="Cannot read the weights"):
        object_models.read(str(path), None)


def test_the_part_below_chooses_in_the_first_steps_only():
    batches = [{"weight": np.ones(2)}] * 4
    assert [b["guided"].tolist() for b in object_models.guide(batches, 3, 5.0)] == [[True] * 2] * 2 + [[False] * 2] * 2


def test_with_the_temporal_part_only_its_detections_are_compared():
    rng = np.random.default_rng(0)
    outputs = video_object.Boxes(
        jnp.asarray(rng.normal(size=(2, 3, 1, 4, 5))), jnp.asarray(rng.random((2, 3, 1, 4, 4)))
    )
    box = jnp.asarray([[[[0.1, 0.1, 0.5, 0.6]]]] * 2)
    batch = {"box": box, "label": jnp.zeros((2, 1), int), "valid": jnp.ones((2, 1, 1), bool)}
    task = object_models.detection(TASKS["video_object"], preset("imagenet_vid"))
    last = video_object.Boxes(*(x[:, -1:] for x in outputs))
    np.testing.assert_allclose(task.loss(outputs, batch)[0], video_object.loss(last, batch)[0], rtol=1e-6)
    whole = object_models.detection(TASKS["video_object"], preset("imagenet_vid_single"))
    assert whole is TASKS["video_object"]


def test_frames_that_masks_do_not_fit_are_refused():
    config = small("youtube_vis", {"name": "youtube_vis"})
    with pytest.raises(UserError, match="Frames of 33 x 48 pixels do not fit masks of every 2 pixels"):
        object_models.segmenter(2, config, {"frames": np.zeros((1, 2, 33, 48, 3), np.uint8)})
    config.model.stage = "whole"
    with pytest.raises(UserError, match="stage of DVIS"):
        object_models.segmenter_sizes(2, config)


def test_padding_is_zero():
    shown = np.array([[[True, False]]])
    video = object_models.padded({"frames": np.full((1, 1, 1, 2, 3), 255, np.uint8), "shown": shown})
    assert (video[0, 0, 0, 0] > 2).all() and not video[0, 0, 0, 1].any()
