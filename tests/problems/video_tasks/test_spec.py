"""The registry: paper sizes and small ones are the same constructors; what is read of weights and of data sets."""

import pathlib
import re
from dataclasses import replace

import jax
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.icons import moving_icons
from jax_promptmtl.models.video.form import Features, InputForm
from jax_promptmtl.models.video.model_file import write_model
from jax_promptmtl.problems.video_tasks import SPECS, icons, next_task
from jax_promptmtl.problems.video_tasks.spec import Rules
from tests.experiments.video.test_finetune import preset

NORM = re.compile(r"(block_\d_\d+|stem)/.*(scale|bias)$")  # of the ResNet
SLOW = pytest.mark.slow
COUNTS = [  # all weights, those that train, heads that have one class more upstream, and upstream's number in millions
    pytest.param("imagenet_vid_single", 30, 34_805_646, 34_530_126, 6, 34.81, marks=SLOW),
    ("imagenet_vid", 30, 39_052_816, 4_247_170, 7, 39.05),
    pytest.param("youtube_vis_minvis", 40, 44_013_097, 43_959_977, 0, 44.01, marks=SLOW),
    pytest.param("youtube_vis", 40, 53_694_034, 9_680_937, 0, 53.69, marks=SLOW),
    ("youtube_vis_offline", 40, 68_109_180, 14_415_146, 0, 68.11),
    ("50salads", 19, 1_134_476, 1_134_476, 0, 1.134),
    ("ssv2", 174, 86_370_222, 86_370_222, 0, 86.37),  # ViT-B's 86,227,200, biases of keys (0 upstream) and the head
]
TASK_OF = {"imagenet": "video_object", "youtube": "video_instance", "50salads": "segmentation", "ssv2": "recognition"}


@pytest.mark.parametrize(("name", "classes", "whole", "trained", "heads", "published"), COUNTS)
def test_full_size_models_have_the_published_numbers_of_weights(name, classes, whole, trained, heads, published):
    config = preset(name)
    spec = SPECS[TASK_OF[name.split("_")[0]]]
    form = InputForm(16, (224, 224), features=Features(64, 2048))
    sizes = spec.sizes(config.model, classes, form)
    shapes = jax.eval_shape(lambda: spec.draw(sizes, 0))
    mask = tree.trainable(shapes, config.tune)
    assert tree.count(shapes) == whole and tree.count(tree.partition(shapes, mask)[0]) == trained
    assert (whole + heads * 257) / 1e6 == pytest.approx(published, abs=0.005)
    assert not any(keep for path, keep in tree.flatten(mask).items() if NORM.search(path))


def test_the_tasks_are_those_of_the_moving_icons_in_the_order_of_the_paper():
    assert list(SPECS) == list(icons.SIZES) and set(SPECS) == set(moving_icons.TASKS)
    assert [next_task(name) for name in SPECS] == [*list(SPECS)[1:], next(iter(SPECS))]


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_fits_its_own_model(name):
    spec = SPECS[name]
    params = jax.eval_shape(lambda: icons.initial(name, 0))
    whole = {"trunk": {}, "model": params} if spec.extractor else params
    paths = list(tree.flatten(whole))
    for pattern in (*spec.heads, *(stage.tune[0] for stage in spec.stages)):
        assert any(re.fullmatch(pattern, path) for path in paths), pattern
    assert not spec.own or spec.own in whole
    backbone = icons.view(name, {name: params, "recognition": {"trunk": {}}}, icons.frames_of(name)).backbone
    assert backbone.name == name and backbone.dim == spec.width(icons.sizes(name))
    layer = spec.layer_above(backbone)
    assert layer is None or any(path.startswith(layer) for path in paths)


def test_what_is_read_of_weights(tmp_path):
    spec, sizes = SPECS["temporal_action"], icons.sizes("temporal_action")
    drawn = jax.tree.map(np.asarray, icons.initial("temporal_action", 3))
    path = str(write_model(tmp_path, "thumos14", drawn, {}))
    jax.tree.map(np.testing.assert_array_equal, spec.start(sizes, 0, path), drawn)
    data = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UserError, match="is not what its card says: other bytes"):
        spec.start(sizes, 0, path)
    with pytest.raises(UserError, match=r"No published weights are read for temporal_action, and 'actionformer\.pth'"):
        replace(spec, convert=None).start(sizes, 0, "actionformer.pth")


def test_only_scored_classes_and_no_background_count():
    box = {"box": np.array([[[0, 0, 1, 1.0]]]), "valid": np.array([[True]])}
    found = {"score": np.array([[[0.9, 0.8]]]), **box}
    wrong = {"label": np.array([[[True, False]]]), **box}
    both = {"label": np.array([[[True, True]]]), **box}
    spatial = SPECS["spatial_action"].rule(SPECS["spatial_action"].task, Rules(scored=(0,)))
    assert spatial.measure(found, wrong) == spatial.measure(found, both)
    found, true = {"label": np.array([[0, 0, 0, 0]])}, {"full": np.array([[0, 0, 0, 0, 0, 0, 1, 1]])}
    halved = SPECS["segmentation"].rule(SPECS["segmentation"].task, Rules(background=(1,), every=2))
    assert halved.labels == ("label", "full") and halved.measure(found, true)["edit"] == 100.0


def test_a_model_of_features_refuses_a_video():
    with pytest.raises(UserError, match="give it features, or an extractor"):
        SPECS["segmentation"].sizes({}, 3, InputForm(16, (32, 32)))
