"""Features of videos as files: by both rules against one window at a time, gone on with, and read by data sets."""

import runpy

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.videos import video_file
from jax_promptmtl.data.videos.features import open_features
from jax_promptmtl.experiments.video import features
from jax_promptmtl.models.video.model_file import write_model
from jax_promptmtl.models.video.videomae import VideoClassifier
from jax_promptmtl.problems.video_tasks import SPECS
from jax_promptmtl.problems.video_tasks.files import InputForm
from tests import clips
from tests.runs import ROOT
from tests.small_videos import TINY
from tests.weights import draw

pytest.importorskip("av")
CONFIG = runpy.run_path(str(ROOT / "configs" / "features.py"))["get_config"]
SPEC = SPECS["recognition"]
SIZES = SPEC.sizes(TINY, 3, InputForm(4, (16, 16)))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    home = tmp_path_factory.mktemp("features")
    clips.write(home / "videos" / "a.mp4", 17, size=(16, 16))
    clips.write(home / "videos" / "below" / "b.mp4", 6, size=(16, 16))
    params = draw(VideoClassifier(SIZES), *SPEC.example(SIZES))
    write_model(home, "vit", params, {"config": {"model": TINY}})
    return home


def small(place, rule):
    config = CONFIG(rule)
    with config.unlocked():
        config.update({"root": str(place / "videos"), "weights": str(place / "vit.safetensors")})
        config.update({"window": 4, "stride": 2, "size": 16, "batch_size": 3})
    return config


def test_windows_are_the_inputs_of_the_head_and_the_last_ones_are_whole(place, tmp_path):
    config = small(place, "windows")
    features.run(config, tmp_path, dry_run=False)
    found = open_features(tmp_path / "a.npy", TINY["width"])
    assert len(found) == 7 and len(np.load(tmp_path / "b.npy")) == 2  # starts 0, 2, ..., 12 of 17 frames
    params = SPEC.read(config.weights, SIZES)
    for number in (0, 6):
        frames = video_file.frames(place / "videos/a.mp4", range(2 * number, 2 * number + 4))[None] / np.float32(255)
        logits = VideoClassifier(SIZES).apply({"params": params}, frames)[0]
        head = params["pool"]["head"]
        np.testing.assert_allclose(found[number] @ head["kernel"] + head["bias"], logits, rtol=1e-4, atol=1e-4)


def test_every_frame_has_a_feature(place, tmp_path):
    features.run(small(place, "frames"), tmp_path, dry_run=False)
    found = open_features(tmp_path / "a.npy", TINY["width"], channels_first=True)
    assert found.shape == (17, TINY["width"]) and np.load(tmp_path / "b.npy").shape == (TINY["width"], 6)
    np.testing.assert_array_equal(found[0], found[1])  # of one tubelet
    assert np.abs(found[1] - found[2]).max() > 1e-4


def test_a_stopped_run_goes_on_and_another_is_refused(place, tmp_path):
    config = small(place, "windows")
    features.run(config, tmp_path, dry_run=False)
    first = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").unlink()
    before = (tmp_path / "b.npy").stat().st_mtime_ns
    features.run(config, tmp_path, dry_run=False)
    assert (tmp_path / "a.npy").read_bytes() == first and (tmp_path / "b.npy").stat().st_mtime_ns == before
    config.stride = 1
    with pytest.raises(UserError, match="were made with stride 2, not 1"):
        features.run(config, tmp_path, dry_run=False)


def test_no_videos_and_no_weights_are_refused(place, tmp_path):
    for key, message in (("root", "--config.root"), ("weights", "--config.weights")):
        config = small(place, "windows")
        config[key] = ""
        with pytest.raises(UserError, match=message):
            features.run(config, tmp_path, dry_run=False)
