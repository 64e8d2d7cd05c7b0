"""Official annotation files with something wrong in them: refused in one sentence that says what."""

import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import videos
from jax_promptmtl.data.videos import ava
from tests import video_trees
from tests.video_trees import edit, replace

VID = "annotations/imagenet_vid_train.json"
WRONG = [
    (
        "ssv2",
        "something-something-v2-train.json",
        lambda p: replace(p, "Closing [", "Closng ["),
        "Did you mean 'Closing",
    ),
    ("ssv2", "something-something-v2-train.json", lambda p: p.write_text("{}"), "the file: expected array, got object"),
    ("ssv2", "something-something-v2-train.json", lambda p: p.write_text('[{"id": "1"}]'), r"\[0\]: lacks 'template'"),
    ("ssv2", "something-something-v2-labels.json", lambda p: p.write_text("{"), "no JSON"),
    (
        "ssv2",
        "something-something-v2-labels.json",
        lambda p: replace(p, '"2"', '"3"'),
        "not numbered 0, 1, ...",
    ),
    (
        "ucf101",
        "ucfTrainTestlist/testlist01.txt",
        lambda p: replace(p, "ApplyEyeMakeup/", "Eye/"),
        "Unknown label .*'Eye'",
    ),
    ("ucf101", "ucfTrainTestlist/trainlist01.txt", lambda p: replace(p, " 2", " 1"), "must look like"),
    ("ucf101", "ucfTrainTestlist/testlist01.txt", lambda p: p.unlink(), "Cannot read the annotations.*No such file"),
    ("ucf101", "ucfTrainTestlist/testlist01.txt", lambda p: p.write_text(""), "test part of 'ucf101' is empty"),
    (
        "ucf101",
        "ucfTrainTestlist/trainlist01.txt",
        lambda p: replace(p, "g02", "g01"),
        "lists .*g01_c01.avi' twice",
    ),
    (
        "hmdb51",
        "testTrainMulti_7030_splits/catch_test_split1.txt",
        lambda p: replace(p, "avi 0", "avi 3"),
        "Line 3 of",
    ),
    (
        "ava",
        "annotations/ava_train_v2.2.csv",
        lambda p: replace(p, ",3,1", ",4,1"),
        r"Action 4 .*legal are 1 to 3",
    ),
    (
        "ava",
        "annotations/ava_train_v2.2.csv",
        lambda p: replace(p, "0.811", "1.2"),
        "must lie in the frame",
    ),
    ("ava", "annotations/ava_train_v2.2.csv", lambda p: replace(p, "0.811", "nan"), "Line 1 of .*nan"),
    ("ava", "annotations/ava_train_v2.2.csv", lambda p: replace(p, "0.811", "tall"), "Line 1 of .*tall"),
    ("ava", ava.ACTIONS, lambda p: replace(p, "label_id: 1", "label_id: 9"), "not numbered 1, 2, ..."),
    ("ava", ava.SCORED, lambda p: replace(p, "dance", "sing"), "Action 3 of .* is not that of"),
    ("ava_kinetics", "kinetics_val_v1.0.csv", lambda p: replace(p, "3.5", "soon"), "Line 1 of .*'ghi,soon"),
    (
        "thumos14",
        "annotations/thumos14.json",
        lambda p: replace(p, '"Test"', '"Tset"'),
        "Unknown subset .*'test'",
    ),
    (
        "thumos14",
        "annotations/thumos14.json",
        lambda p: replace(p, "[6.5, 9.0]", "[9.5, 9.0]"),
        "second 9.5 to 9",
    ),
    (
        "thumos14",
        "annotations/thumos14.json",
        lambda p: replace(p, "[3.0, 5.0]", "[13.0, 15.0]"),
        "the video lasts 12",
    ),
    (
        "thumos14",
        "annotations/thumos14.json",
        lambda p: edit(p, lambda c: c.pop("database")),
        "lacks 'database'",
    ),
    (
        "thumos14",
        "annotations/thumos14.json",
        lambda p: edit(p, lambda c: c["database"]["video_test_0000004"].update(annotations=[])),
        "'video_test_0000004' has no segments",
    ),
    (
        "gtea",
        "gtea/groundTruth/S1_Cheese_C1.txt",
        lambda p: replace(p, "take", "tke"),
        "Unknown label .*'tke'.*'take'",
    ),
    ("gtea", "gtea/groundTruth/S1_Cheese_C1.txt", lambda p: p.write_text("\n"), "ground truth .* is empty"),
    ("gtea", "gtea/mapping.txt", lambda p: replace(p, "1 open", "1"), "Line 2 of .*'0 cut_tomato'"),
    (
        "gtea",
        "gtea/splits/test.split1.bundle",
        lambda p: replace(p, "S2", "S1"),
        "trains and tests in split 1",
    ),
    (
        "imagenet_vid",
        VID,
        lambda p: replace(p, "[10, 5, 38, 27]", "[10, 5, 41, 27]"),
        "must lie in the frame",
    ),
    ("imagenet_vid", VID, lambda p: replace(p, '"image_id": 4', '"image_id": 5'), "has image 5 and class"),
    (
        "imagenet_vid",
        VID,
        lambda p: replace(p, '"name": "antelope"', '"name": "ant"'),
        "not those of the training file",
    ),
    (
        "imagenet_vid",
        VID,
        lambda p: edit(p, lambda c: c["annotations"][3].update(instance_id=1)),
        "Instance 1 of .* has two classes",
    ),
    (
        "youtube_vis",
        "train.json",
        lambda p: edit(p, lambda c: c["annotations"][0]["segmentations"].pop()),
        "masks for 2",
    ),
    (
        "youtube_vis",
        "train.json",
        lambda p: replace(p, "[32, 48]", "[48, 32]"),
        "is of 48 x 32 pixels, but the video is of 32 x 48",
    ),
    (
        "youtube_vis",
        "train.json",
        lambda p: edit(p, lambda c: c["annotations"][0].update(category_id=3)),
        "class 3",
    ),
]


@pytest.mark.parametrize(("name", "file", "spoil", "message"), WRONG)
def test_wrong_annotations_are_one_sentence(name, file, spoil, message, tmp_path, annotations_only):
    config = video_trees.TREES[name](tmp_path)
    spoil(tmp_path / ("annotations" if file.endswith("pbtxt") else "") / file)
    with pytest.raises(UserError, match=message) as caught:
        videos.read(config)
    assert "\n" not in str(caught.value)
