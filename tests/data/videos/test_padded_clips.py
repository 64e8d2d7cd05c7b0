"""Clips with padding out of real files: frames on a canvas, key frames with others, videos shorter than a clip."""

import dataclasses

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import videos
from jax_promptmtl.data.videos.key_frames import by_frame, spread, with_others
from jax_promptmtl.data.videos.sampling import ClipFiles, Sampling, sources
from tests import clips, video_trees

CANVAS = Sampling(frames=3, stride=1, size=32, whole=True, canvas=(40, 64))  # frames have 32 x 48 pixels
PADDED = dataclasses.replace(CANVAS, frames=5, short="pad")


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    made = {name: video_trees.TREES[name](tmp_path_factory.mktemp(name)) for name in ("imagenet_vid", "youtube_vis")}
    return {name: videos.read(config) for name, config in made.items()}


def spelled(frames):
    return [clips.number(frame[:32, :48]) for frame in frames]


@pytest.mark.parametrize(
    ("size", "canvas", "frame", "wanted"),
    [
        (600, (600, 1000), (720, 1280), (563, 1000)),
        (600, (600, 1000), (480, 640), (600, 800)),
        (600, (600, 1000), (1280, 720), (600, 338)),
        (360, (384, 640), (720, 1280), (360, 640)),
        (48, (), (20, 90), (48, 48)),
    ],
)
def test_whole_frames_keep_their_shape_on_a_canvas(size, canvas, frame, wanted):
    assert Sampling(size=size, whole=True, canvas=canvas).fitted(*frame) == wanted


def test_frames_and_masks_are_padded_alike_and_boxes_are_of_the_frame(trees):
    batch = ClipFiles(trees["youtube_vis"], "test", CANVAS).take(np.array([0]))
    assert batch["frames"].shape == (1, 3, 40, 64, 3) and batch["mask"].shape == (1, 3, 2, 40, 64)
    assert batch["shown"][0, :32, :48].all() and batch["shown"].sum() == 32 * 48 and batch["present"].all()
    assert not batch["frames"][0][:, ~batch["shown"][0]].any() and not batch["mask"][..., ~batch["shown"][0]].any()
    np.testing.assert_array_equal(batch["mask"][0, 2, 0, :32, :48], video_trees.square(2))
    boxes = ClipFiles(trees["imagenet_vid"], "test", CANVAS).take(np.array([0]))
    np.testing.assert_allclose(boxes["box"][0, 0, 0] * [48, 32, 48, 32], [10, 5, 48, 32], rtol=1e-6)


def test_a_mirrored_frame_stays_at_the_left(trees):
    source = ClipFiles(trees["youtube_vis"], "train", dataclasses.replace(CANVAS, flip=True), views=1)
    example, frames = source.examples[0], np.random.default_rng(0).integers(1, 255, (3, 32, 48, 3), np.uint8)
    plain, mirrored = (source.label(example, np.arange(3), flag)["mask"][..., :48] for flag in (False, True))
    np.testing.assert_array_equal(mirrored, plain[..., ::-1])
    shown = source.show(frames, np.random.default_rng(0), True, 0)
    np.testing.assert_array_equal(shown[:, :32, :48], frames[:, :, ::-1])


def test_a_short_video_is_padded_and_a_test_shows_it_whole(trees):
    batch = ClipFiles(trees["youtube_vis"], "test", PADDED).take(np.array([0]))
    assert batch["present"].tolist() == [[True] * 3 + [False] * 2] and not batch["mask"][0, 3:].any()
    assert len(set(spelled(batch["frames"][0])[2:])) == 1
    parts = sources(trees["youtube_vis"], dataclasses.replace(PADDED, frames=1, tested=4), views=2, seed=0)
    shapes = {part: source.take(np.array([0]))["frames"].shape[1] for part, (source,) in parts.items()}
    assert shapes == {"train": 1, "test": 4}
    with pytest.raises(UserError, match="clips of 'imagenet_vid' have no padding"):
        ClipFiles(trees["imagenet_vid"], "test", PADDED)
    with pytest.raises(UserError, match=r"sampling.canvas is \(9,\)"):
        Sampling(whole=True, canvas=(9,))


def test_training_clips_may_run_backwards(trees):
    source = ClipFiles(trees["youtube_vis"], "train", dataclasses.replace(CANVAS, backwards=True), views=8)
    orders = {tuple(source.choose(source.examples[0], np.random.default_rng(i), 0)[0].tolist()) for i in range(16)}
    assert orders == {(0, 1, 2), (2, 1, 0)}
    assert source.choose(source.examples[0], None, 0)[0].tolist() == [0, 1, 2]


def test_every_frame_is_a_key_frame_and_only_its_objects_are_wanted(trees):
    data = by_frame(trees["imagenet_vid"])
    assert [len(data.parts[part]) for part in ("train", "test")] == [2, 4]  # marked frames, all frames
    assert len({example.name for example in data.parts["test"]}) == 4
    batch = ClipFiles(data, "test", dataclasses.replace(CANVAS, frames=4, stride=0)).take(np.arange(4))
    assert [spelled(frames)[0] for frames in batch["frames"]] == [0, 1, 2, 3]
    assert batch["box"].shape == (4, 1, 2, 4) and batch["valid"][:, 0].tolist() == [[True, False]] + [[True, True]] * 3


@pytest.mark.parametrize(("key", "count"), [(0, 300), (150, 300), (299, 300), (3, 10), (0, 2)])
def test_test_references_are_upstreams(key, count):
    """The loop of TransVOD's vid_multi.py for 14 reference frames, with numbers of frames instead of images."""
    interval, sample = max(count // 16, 1), []
    for i in range((0 - key) // interval, (count - 1 - key) // interval):
        if i < 0:
            sample.append(max(key + i * interval, 0))
        elif i > 0:
            sample.append(min(key + i * interval, count - 1))
    if key in sample:
        sample.remove(key)
    assert spread(key, count) == sample or key == 0
    if sample:
        while len(sample) < 14:
            sample.extend(sample)
        assert with_others(key, count, 15, None).tolist() == [key, *sample[:14]]


def test_training_references_are_drawn_from_the_whole_video_without_the_key():
    found = [with_others(7, 100, 15, np.random.default_rng(i)) for i in range(50)]
    assert all(one[0] == 7 and 7 not in one[1:] and len(set(one.tolist())) == 15 for one in found)
    assert {frame for one in found for frame in one.tolist()} == set(range(100))
    short = with_others(1, 3, 6, np.random.default_rng(0))
    assert set(short[1:].tolist()) == {0, 2} and len(short) == 6
