"""Clips out of real files: which frames, which labels beside them, and what is refused."""

import dataclasses

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import videos
from jax_promptmtl.data.videos import video_file
from jax_promptmtl.data.videos.feature_files import FeatureFiles
from jax_promptmtl.data.videos.features import features_of
from jax_promptmtl.data.videos.sampling import ClipFiles, Sampling, numbers, resize
from tests import clips, video_trees

pytest.importorskip("av")
WIDE = Sampling(frames=4, stride=2, size=48, whole=True)  # keeps the bands that spell the numbers


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in video_trees.TREES.items()}


def spelled(frames):
    return [clips.number(frame) for frame in frames]


@pytest.mark.parametrize("count", [4, 5, 16, 33])
@pytest.mark.parametrize("stride", [0, 1, 3])
def test_frames_are_spread_or_in_steps_and_stay_in_the_video(count, stride):
    for rng in (None, np.random.default_rng(count)):
        found = numbers(count, Sampling(frames=4, stride=stride), rng=rng)
        assert len(found) == 4 and found.min() >= 0 and found.max() < count and (np.diff(found) >= 0).all()
        if stride and count > 3 * stride:
            assert (np.diff(found) == stride).all()
        if not stride:  # one in each quarter
            assert all(i * count / 4 - 1 < n < (i + 1) * count / 4 for i, n in enumerate(found))


def test_random_starts_reach_both_ends():
    rng = np.random.default_rng(0)
    starts = {int(numbers(10, Sampling(frames=4, stride=2), rng=rng)[0]) for _ in range(100)}
    assert starts == {0, 1, 2, 3}


def test_a_clip_holds_the_frames_of_its_video_and_its_label(trees):
    data = videos.read(trees["ucf101"])
    source = ClipFiles(data, "test", WIDE)
    batch = source.take(np.array([1, 0]))
    assert batch["frames"].shape == (2, 4, 48, 48, 3) and batch["label"].tolist() == [1, 0] and len(source) == 2
    first = 32 * 2 + 4 * 3  # of the picture that the tree's maker drew for class 2, group 3
    assert spelled(batch["frames"][0]) == [first + i for i in (2, 4, 6, 8)]


def test_training_views_differ_and_come_again(trees):
    data = videos.read(trees["ucf101"])
    sampling = Sampling(frames=4, stride=1, size=8, flip=True)
    source = ClipFiles(data, "train", sampling, views=3, seed=1)
    assert len(source) == 12
    views = source.take(np.arange(0, 12, 4))  # of the first video
    assert len({view.tobytes() for view in views["frames"]}) == 3 and set(views["label"]) == {0}
    again = ClipFiles(data, "train", sampling, views=3, seed=1).take(np.arange(0, 12, 4))
    np.testing.assert_array_equal(views["frames"], again["frames"])


def test_recipes_change_training_views_alone_and_the_same_way_again(trees):
    data = videos.read(trees["ucf101"])
    plain = Sampling(frames=4, stride=1, size=48, scale=(1.0, 1.0))
    strong = dataclasses.replace(plain, operations=4, erase=1.0)

    def take(sampling, part, **options):
        return ClipFiles(data, part, sampling, **options).take(np.arange(2))["frames"]

    np.testing.assert_array_equal(take(strong, "test"), take(plain, "test"))
    views = [take(strong, "train", views=2, seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(views[0], views[1])
    assert (views[0] != views[2]).any() and (views[0] != take(plain, "train", views=2, seed=0)).any()


def test_several_views_of_a_test_video_are_spread_over_time_and_space(trees):
    # upstream: spread clips take every second of 2 L evenly spread frames; clips in steps begin between both ends
    for count in (33, 40, 7):
        spread = [numbers(count, Sampling(frames=4, clips=2), clip=clip) for clip in (0, 1)]
        tick = count / 4
        both = np.sort([int(tick / 2 + tick * x) for x in range(4)] + [int(tick * x) for x in range(4)])
        assert sorted(np.concatenate(spread)) == both.tolist() and (spread[0] == both[::2]).all()
        kept = list(range(0, count, 3))
        kept += [kept[-1]] * (4 - len(kept))
        for clip in range(5):
            first = int(clip * max((len(kept) - 4) / 4, 0))
            found = numbers(count, Sampling(frames=4, stride=3, clips=5), clip=clip)
            assert found.tolist() == kept[first : first + 4]
    data = videos.read(trees["ucf101"])  # 12 frames of 32 x 48 pixels
    sampling = Sampling(frames=2, stride=2, size=32, clips=2, crops=3)
    source = ClipFiles(data, "test", sampling)
    assert len(source) == 2 * 6
    batch = source.take(np.arange(12))
    assert batch["label"].tolist() == [0, 1] * 6
    for view, frames in enumerate(batch["frames"][::2]):
        whole = video_file.frames(data.path(source.examples[0].video), [[0, 2], [8, 10]][view // 3])
        np.testing.assert_array_equal(frames, whole[:, :, 8 * (view % 3) :][:, :, :32])
    with pytest.raises(UserError, match="1 crop where"):
        Sampling(crops=3, whole=True)
    with pytest.raises(UserError, match="'ava' has more; test with one"):
        ClipFiles(videos.read(trees["ava"]), "test", Sampling(clips=2))


def test_a_key_frame_is_in_the_middle_with_its_boxes(trees):
    data = videos.read(trees["ava"])
    batch = ClipFiles(data, "train", WIDE).take(np.array([0]))
    assert spelled(batch["frames"][0]) == [16, 18, 20, 22]  # second 2 at 10 frames per second
    assert batch["valid"].tolist() == [[True, True]] and batch["label"].shape == (1, 2, 3)
    np.testing.assert_allclose(batch["box"][0, 1], [0.5, 0.2, 0.9, 1.0], rtol=1e-6)
    folder = ClipFiles(data, "test", WIDE).take(np.array([0]))
    assert spelled(folder["frames"][0]) == [56, 58, 60, 62] and folder["valid"].tolist() == [[True, False]]


def test_mirrored_views_mirror_boxes_and_masks(trees):
    boxes = ClipFiles(videos.read(trees["ava"]), "train", WIDE)
    example = boxes.examples[0]
    plain, mirrored = (boxes.label(example, np.arange(4), flag)["box"] for flag in (False, True))
    np.testing.assert_allclose(mirrored[:, [0, 2]], 1 - plain[:, [2, 0]])
    np.testing.assert_allclose(mirrored[:, [1, 3]], plain[:, [1, 3]])
    masks = ClipFiles(videos.read(trees["youtube_vis"]), "train", dataclasses.replace(WIDE, frames=3))
    plain, mirrored = (masks.label(masks.examples[0], np.arange(3), flag)["mask"] for flag in (False, True))
    np.testing.assert_array_equal(mirrored, plain[..., ::-1])
    frames = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), np.uint8)
    squares = Sampling(size=16)
    np.testing.assert_array_equal(resize(frames, squares, None, True), frames[:, :, ::-1])


def test_tracks_follow_the_sampled_frames(trees):
    sampling = dataclasses.replace(WIDE, stride=0, frames=2)
    batch = ClipFiles(videos.read(trees["imagenet_vid"]), "test", sampling).take(np.array([0]))
    assert spelled(batch["frames"][0]) == [1, 3] and batch["valid"].all()
    np.testing.assert_allclose(batch["box"][0, :, 1, 0] * 48, [3, 5], rtol=1e-5)
    batch = ClipFiles(videos.read(trees["youtube_vis"]), "test", dataclasses.replace(sampling, frames=3)).take(
        np.array([0])
    )
    wanted = [[m, None][hidden] for m, hidden in ((video_trees.square(0), 0), (None, 1), (video_trees.square(2), 0))]
    assert batch["mask"].shape == (1, 3, 2, 48, 48) and batch["label"].tolist() == [[0, 1]]
    assert not batch["mask"][0, 1].any() and not batch["mask"][0, 0, 1].any()
    for i in (0, 2):  # 32 rows became 48
        np.testing.assert_allclose(batch["mask"][0, i, 0].sum(), 1.5 * wanted[i].sum(), rtol=0.1)
        assert (np.flatnonzero(batch["mask"][0, i, 0].any(0)) == np.flatnonzero(wanted[i].any(0))).all()


def test_the_middle_square_is_cut_out_of_test_clips():
    frames = np.zeros((1, 10, 30, 3), np.uint8)
    frames[:, :, 10:20] = 200
    assert (resize(frames, Sampling(size=5), None, False)[:, :, 1:4] == 200).all()  # the filter reads over the edge
    assert len(np.unique(resize(frames, Sampling(size=30, whole=True), None, False)[0, 5, :, 0])) > 1


def test_short_videos_are_refused_unless_their_frames_may_repeat(trees):
    data, long = videos.read(trees["hmdb51"]), Sampling(frames=4, stride=4, size=48, whole=True)
    with pytest.raises(UserError, match=r"has 9 frames, but a clip of 4 in steps of 4 needs 13; .*short='repeat'"):
        ClipFiles(data, "train", long).take(np.array([0]))
    source = ClipFiles(data, "train", dataclasses.replace(long, short="repeat"))
    assert spelled(source.take(np.array([0]))["frames"][0]) == [0, 4, 8, 8]
    with pytest.raises(UserError, match="Unknown way with short videos 'loop'"):
        Sampling(short="loop")


def test_features_are_padded_and_labels_cut_to_them(trees):
    data = videos.read(trees["50salads"])
    source = FeatureFiles(data, "test", every=2, multiple=8)
    batch = source.take(np.array([0]))
    assert batch["features"].shape == (1, 16, video_trees.CHANNELS) and batch["mask"].sum() == 15
    example = data.parts["test"][0]
    stored = np.load(data.path(example.video))  # two frames longer than its labels
    np.testing.assert_array_equal(batch["features"][0, :15], stored.T[:30:2])
    assert batch["label"][0].tolist() == [*example.labels["label"][::2], -1]
    assert batch["full"][0].tolist() == [*example.labels["label"], -1, -1]


def test_segments_are_padded(trees):
    data = videos.read(trees["thumos14"])
    batch = FeatureFiles(data, "train", multiple=16).take(np.array([1, 0]))
    assert batch["features"].shape == (2, 96, video_trees.CHANNELS) and batch["mask"].sum() == 2 * 85
    assert batch["valid"].tolist() == [[True, False], [True, True]]
    assert batch["segment"][0].tolist() == [[0.0, 2.5], [0.0, 0.0]] and batch["label"].tolist() == [[0, 0], [1, 0]]


def test_long_training_videos_are_cut_into_windows_that_show_actions(trees):
    data = videos.read(trees["thumos14"])  # 85 features; actions in seconds 1 to 4 and 6.5 to 9; and 0 to 2.5
    options = {"window": 40, "step": 0.1, "multiple": 8}
    source = FeatureFiles(data, "train", **options)
    assert [(e.name[-2:], first, count) for e, first, count in source.cuts] == [
        ("51", 0, 40),
        ("51", 20, 40),  # the last two thirds of the first action
        ("51", 40, 40),  # more than half of the second
        ("51", 60, 25),
        ("52", 0, 40),
    ]
    batch = source.take(np.arange(5))
    assert batch["features"].shape[1] == 40 and batch["mask"].sum(1).tolist() == [40, 40, 40, 25, 40]
    found = [row[valid].round(4).tolist() for row, valid in zip(batch["segment"], batch["valid"], strict=True)]
    assert found == [[[1, 4]], [[0, 2]], [[2.5, 4]], [[0.5, 2.5]], [[0, 2.5]]]
    assert batch["label"][:, 0].tolist() == [1, 1, 0, 0, 0]
    stored = np.load(data.path(source.cuts[3][0].video))
    np.testing.assert_array_equal(batch["features"][3, :25], stored[60:])
    assert len(FeatureFiles(data, "test", **options)) == 1


def test_features_that_do_not_fit_are_one_sentence(tmp_path):
    data = videos.read(video_trees.gtea(tmp_path))
    example = data.parts["train"][0]
    path = data.path(example.video)
    whole = np.load(path)
    for content, message in (
        (whole.T, r"have the shape \[30, 12\]; \[12, T\] is wanted"),
        (whole[:, :0], "is wanted"),
        (whole[:, :5], "5 features, but labels for 30 frames"),
    ):
        np.save(path, content)
        with pytest.raises(UserError, match=message):
            features_of(data, example)
    np.save(path, np.where(np.arange(30) == 3, np.nan, whole))
    with pytest.raises(UserError, match="not finite"):
        FeatureFiles(data, "train").take(np.array([0]))
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(UserError, match=r"no \.npy file of numbers"):
        features_of(data, example)
