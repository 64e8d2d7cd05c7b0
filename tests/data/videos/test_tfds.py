"""UCF101 and YouTube-VIS as TFDS prepares them: the same clips as from the official files, and what is refused."""

import dataclasses

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import videos
from jax_promptmtl.data.videos import tfds as tfds_reader
from jax_promptmtl.data.videos.sampling import ClipFiles, Sampling
from jax_promptmtl.experiments import check_data
from tests import clips, tfds_trees, video_trees

WIDE = Sampling(frames=3, stride=0, size=48, whole=True)  # keeps the bands that spell the numbers


FIELDS = (
    "video",
    "tracks/category",
    "tracks/is_crowd",
    *(
        f"tracks/{name}/ragged_{part}"
        for name in ("frames", "segmentations")
        for part in ("flat_values", "row_lengths_0")
    ),
)


@dataclasses.dataclass
class Fake:
    """Records of which every one has these values."""

    values: list

    def read(self, index, names):
        assert tuple(names) == FIELDS
        return self.values


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    return {
        f"{name}_tfds": getattr(tfds_trees, name)(tmp_path_factory.mktemp(name)) for name in ("ucf101", "youtube_vis")
    }


def test_ucf101_has_the_videos_and_labels_of_its_splits(trees):
    data = videos.read(trees["ucf101_tfds"])
    assert data.class_names == ("ApplyEyeMakeup", "HandstandPushups") and data.task == "recognition"
    assert data.counts() == {"classes": 2, "train": 4, "test": 2, "videos": 6}
    assert data.misfits()[1] == "4 train videos instead of 9,537"
    source = ClipFiles(data, "test", dataclasses.replace(WIDE, frames=4, stride=2))
    batch = source.take(np.arange(2))
    assert sorted(batch["label"]) == [0, 1]
    for label, frames in zip(batch["label"], batch["frames"], strict=True):
        assert [clips.number(frame) for frame in frames] == [32 * (label + 1) + 4 * 3 + i for i in (2, 4, 6, 8)]


def test_youtube_vis_has_the_masks_of_the_official_files(trees, tmp_path):
    data, official = videos.read(trees["youtube_vis_tfds"]), videos.read(video_trees.youtube_vis(tmp_path))
    assert data.class_names == official.class_names and data.counts() == official.counts()
    found, wanted = (ClipFiles(one, "train", WIDE).take(np.arange(3)) for one in (data, official))
    for key in ("mask", "label", "valid"):  # the crowd is left out
        np.testing.assert_array_equal(found[key], wanted[key])
    assert found["mask"].shape == (3, 3, 2, 48, 48) and found["mask"].any((2, 3, 4)).sum() == 6
    numbers = [[clips.number(frame) for frame in frames] for frames in found["frames"]]
    assert all(row == [row[0], row[0] + 1, row[0] + 2] and row[0] % 4 == 0 for row in numbers)


def test_records_written_by_hand_are_what_tfds_reads(trees):
    data = videos.read(trees["youtube_vis_tfds"])
    files = sorted(data.root.glob("*.array_record-*"))
    source = tfds_trees.array_record_module.ArrayRecordReader(str(files[0]))
    tracks = {"areas": tfds.features.Sequence(np.float32), "frames": tfds.features.Sequence(np.int32)}
    tracks |= {"category": tfds.features.ClassLabel(num_classes=2), "is_crowd": np.bool_}
    tracks["segmentations"] = tfds.features.Sequence(np.str_)  # not decoded: TFDS does it with tensorflow
    features = {"tracks": tfds.features.Sequence(tracks), "metadata": {"video_name": np.str_}}
    found = tfds.features.FeaturesDict(features).deserialize_example_np(source.read([0])[0])
    tracks = found["tracks"]
    assert [list(row) for row in tracks["frames"]] == [[0, 2], [0, 1, 2], [2]]
    assert list(tracks["areas"][0]) == [video_trees.square(i).sum() for i in (0, 2)]
    assert list(tracks["is_crowd"]) == [False, True, False] and list(tracks["category"]) == [0, 1, 1]
    assert tracks["segmentations"][0][1] == tfds_trees.png(video_trees.square(2).astype(np.uint8))


@pytest.mark.parametrize("name", ["ucf101_tfds", "youtube_vis_tfds"])
def test_check_data_opens_every_record(trees, name):
    found = check_data.check({"data": trees[name] | {"strict": False}})
    assert not found.problems and any("the shortest has" in remark for remark in found.remarks)
    assert check_data.check({"data": trees[name]}).problems  # not as many as published


def test_what_is_wrong_is_one_sentence(trees, tmp_path):
    config = trees["ucf101_tfds"]
    with pytest.raises(UserError, match=r"has no ucf101/ucf101_2; expected .* from TFDS"):
        videos.read(config | {"split": 2})
    with pytest.raises(UserError, match="Unknown config of youtube_vis 'full'"):
        videos.read(trees["youtube_vis_tfds"] | {"config": "full"})
    (tmp_path / "empty/ucf101/ucf101_3").mkdir(parents=True)
    with pytest.raises(UserError, match="has no version; expected"):
        videos.read(config | {"root": str(tmp_path / "empty"), "split": 3})
    broken = tfds_trees.youtube_vis(tmp_path)
    data = videos.read(broken)
    record = dataclasses.replace(data.fill.args[0], source=[b"x" * 9] * 4)
    lost = dataclasses.replace(data, fill=lambda example: record.read(0, ()))
    with pytest.raises(UserError, match="record 0 of 'youtube_vis-train' cannot be read"):
        lost.filled(data.parts["train"][0])
    records, count = data.fill.args
    right = records.read(0, FIELDS)
    for place, values in ((1, [0, 7, 1]), (2, [0]), (3, [0, 9, 2, *right[3][3:]]), (4, [2, 9, 9]), (6, [1, 1])):
        fake = Fake([*right[:place], values, *right[place + 1 :]])
        with pytest.raises(UserError, match=r"TFDS record .* has lists that do not fit, or a label of"):
            tfds_reader.fill_youtube_vis(fake, count, data.parts["train"][0])
    next(data.root.glob("*-00001-of-00002")).unlink()
    with pytest.raises(UserError, match=r"has 1 of the 2 files youtube_vis-train\.array_record"):
        videos.read(broken)
