"""Frame rates of videos behind features, and features that are shorter or longer than their video."""

import numpy as np
import pytest

from jax_promptmtl.data import videos
from jax_promptmtl.data.videos import feature_time
from jax_promptmtl.experiments import check_data
from tests import video_trees
from tests.video_trees import edit

FEATURE = {"rate": 30.0, "stride": 4, "window": 16}
FIRST, SECOND = "video_validation_0000051", "video_validation_0000052"


def tree(root, **about):
    config = video_trees.thumos14(root)
    edit(root / "annotations/thumos14.json", lambda c: c["database"][FIRST].update(about))
    return config


def by_name(data):
    return {e.name: e.labels["segment"] for part in data.parts.values() for e in part}


def test_a_feature_shows_the_same_action_at_every_rate(tmp_path):
    config = tree(tmp_path, fps=24.0)
    data = videos.read(config)
    clock = feature_time.on_one_clock(data, 30.0)
    own, turned = by_name(data), by_name(clock)
    for (start, end), (first, last) in zip(own[FIRST], turned[FIRST], strict=True):
        middle = (np.arange(85) * 4 + 8) / 24.0  # of each feature in the video's own time
        shown = (middle >= start) & (middle <= end)
        nominal = (np.arange(85) * 4 + 8) / 30.0
        np.testing.assert_array_equal((nominal >= first - 1e-6) & (nominal <= last + 1e-6), shown)
        assert shown.any()
    np.testing.assert_array_equal(turned[SECOND], own[SECOND])
    assert feature_time.on_one_clock(videos.read(tree(tmp_path / "same")), 30.0).parts.keys() == data.parts.keys()


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({}, []),
        ({"duration": None}, []),
        ({"duration": 40.0}, ["1 videos have features for another time than they last: ", f"{FIRST} (11.7 of 40.0 s)"]),
        ({"fps": 60.0}, ["another time", "(5.9 of 12.0 s)", "1 videos have actions that no feature shows (1)", FIRST]),
        ({"fps": 12.0}, ["another time", "(29.3 of 12.0 s)"]),
    ],
)
def test_features_of_another_length_are_said(tmp_path, about, words):
    config = tree(tmp_path, **about)
    found = check_data.check({"data": config | {"strict": False}, "feature": FEATURE})
    lines = feature_time.misfits(videos.read(config), FEATURE)
    told = " ".join(lines)
    assert bool(told) == bool(words) and all(word in told for word in words)
    assert not found.problems and all(
        line in found.remarks for line in feature_time.misfits(videos.read(config), FEATURE)
    )


def test_features_and_labels_of_another_length_are_said(tmp_path):
    (line,) = feature_time.misfits(videos.read(video_trees.salads(tmp_path)), FEATURE)
    assert line == "1 videos have more or fewer features than labels, by 2 at most: cut to the shorter: 'rgb-02-1'"
