"""What cannot be read at any time is left out when the data may be a part: named, counted, kept, and nothing else."""

import json

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import videos
from jax_promptmtl.data.video_batches import all_batches, training_batches
from jax_promptmtl.data.videos.feature_files import FeatureFiles
from jax_promptmtl.data.videos.left_out import LeftOut
from jax_promptmtl.data.videos.sampling import ClipFiles, Sampling
from tests import clips, odd_clips, video_trees

pytest.importorskip("av")
WIDE = Sampling(frames=4, stride=2, size=48, whole=True)
VIEWS = Sampling(frames=2, stride=2, size=32, clips=3, crops=2)


@pytest.fixture
def tree(tmp_path):
    for label, name in enumerate(("jump", "run")):
        for i in range(5):
            clips.write(tmp_path / "data" / name / f"{i}.mp4", 24, first=40 * label, bf="0")
    return videos.read({"name": "own", "root": str(tmp_path / "data"), "held_out": 0.4})


def spelled(batch):
    return [clips.number(frames[0]) for frames in batch["frames"]]


def test_training_takes_the_next_clip_and_depends_on_nothing_else(tree, tmp_path):
    bad = tree.parts["train"][2]
    tree.path(bad.video).write_bytes(b"no video")
    lines, runs = [], []
    for start in (0, 0, 3):
        left_out = LeftOut(tmp_path / "left_out.jsonl", lines.append)
        source = ClipFiles(tree, "train", WIDE, views=4, seed=1, left_out=left_out)
        batches = training_batches([source], batch_size=3, seed=0, start_step=start, views=4)
        runs.append([next(batches) for _ in range(6 - start)])
    for one, other in zip(runs[0][3:] + runs[0], runs[2] + runs[1], strict=True):
        np.testing.assert_array_equal(one["frames"], other["frames"])
    assert all((batch["weight"] == np.float32(1 / 3)).all() and "kept" not in batch for batch in runs[0])
    row = source.take(np.array([2, 3]))
    np.testing.assert_array_equal(row["label"], [tree.parts["train"][3].labels["label"]] * 2)
    assert list(left_out.found) == [bad.name] and len(lines) == 1 and "left out" in lines[0] and bad.name in lines[0]
    (kept,) = map(json.loads, (tmp_path / "left_out.jsonl").read_text().splitlines())
    assert kept["name"] == bad.name and "cannot be read" in kept["why"] and kept["left_out"]
    with pytest.raises(UserError, match="cannot be read"):
        ClipFiles(tree, "train", WIDE, views=4).take(np.arange(6))


@pytest.mark.parametrize("sampling", [WIDE, VIEWS])
def test_a_test_video_counts_in_all_its_views_or_in_none(tree, sampling):
    sound = list(all_batches([ClipFiles(tree, "test", sampling)], batch_size=3))
    bad = tree.path(tree.parts["test"][1].video)
    odd_clips.overwrite(bad, 0.6, bytes(200))  # frames near its end; the first clip is whole
    left_out = LeftOut(say=lambda line: None)
    found = list(all_batches([ClipFiles(tree, "test", sampling, left_out=left_out)], batch_size=3))
    assert list(left_out.found) == [tree.parts["test"][1].name]
    real, true = (np.concatenate([batch["weight"] for batch in batches]) > 0 for batches in (found, sound))
    views = sampling.clips * sampling.crops
    wanted = np.arange(4 * views) % 4 != 1
    np.testing.assert_array_equal(real[: 4 * views], wanted)
    for key in ("frames", "label"):
        mine, other = (np.concatenate([batch[key] for batch in batches]) for batches in (found, sound))
        np.testing.assert_array_equal(mine[: 4 * views][wanted], other[true][wanted])


def test_a_file_that_ends_early_is_used_up_to_there_and_counted(tree):
    example = tree.parts["test"][0]
    path = clips.write(tree.path(example.video).with_suffix(".mkv"), 100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    path.rename(tree.path(example.video))
    left_out = LeftOut(say=lambda line: None)
    numbers = spelled(ClipFiles(tree, "test", Sampling(frames=2, size=48, whole=True), left_out=left_out).take([0]))
    assert not left_out.found and list(left_out.short) == [example.video] and 0 < numbers[0] < 25
    assert "1 videos end early and were used up to there" in left_out.words()[0]
    with pytest.raises(UserError, match="cut off"):
        ClipFiles(tree, "test", WIDE).take([0])


def test_a_video_shorter_than_its_labels_loses_its_key_frames_not_the_run(tmp_path):
    data = videos.read(video_trees.ava(tmp_path))
    example = data.parts["train"][0]
    clips.write(data.path(example.video), 30, rate=10)
    left_out = LeftOut(say=lambda line: None)
    source = ClipFiles(data, "train", WIDE, left_out=left_out)
    batches = list(all_batches([source], batch_size=2))
    weight = np.concatenate([batch["weight"] for batch in batches])[: len(source)]
    late = [e.name for e in source.examples if e.video == example.video and e.second > 3]
    assert list(left_out.found) == late and late and (weight == [e.name not in late for e in source.examples]).all()


def test_features_that_are_not_finite_are_found_before_training(tmp_path):
    data = videos.read(video_trees.thumos14(tmp_path))
    example = data.parts["train"][0]
    whole = np.load(data.path(example.video))
    whole[7, 3] = np.inf
    np.save(data.path(example.video), whole)
    with pytest.raises(UserError, match="not finite, first in step 7; extract them again"):
        FeatureFiles(data, "train")
    left_out = LeftOut(say=lambda line: None)
    source = FeatureFiles(data, "train", left_out=left_out)
    assert list(left_out.found) == [example.name] and len(source) == len(data.parts["train"]) - 1


def test_nothing_left_is_an_error(tree):
    for example in tree.parts["train"]:
        tree.path(example.video).write_bytes(b"no")
    with pytest.raises(UserError, match="No example of 'own' can be read; look at the data with check_data"):
        ClipFiles(tree, "train", WIDE, views=1, left_out=LeftOut(say=lambda line: None)).take([0])
