"""Every official layout, as a miniature with real files: what the loaders make of it, and what they refuse."""

import dataclasses
import json

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import videos
from jax_promptmtl.data.videos import (
    action_segmentation,
    ava,
    hmdb51,
    imagenet_vid,
    ssv2,
    thumos14,
    ucf101,
    video_file,
    youtube_vis,
)
from tests import video_trees

pytest.importorskip("av")
FOUND = {  # classes, training videos, test videos
    "50salads": (3, 2, 1),
    "ava": (3, 1, 1),
    "ava_kinetics": (3, 2, 1),
    "breakfast": (2, 1, 1),
    "gtea": (3, 1, 1),
    "hmdb51": (2, 2, 2),
    "imagenet_vid": (2, 1, 1),
    "ssv2": (3, 4, 2),
    "thumos14": (2, 2, 1),
    "ucf101": (2, 4, 2),
    "youtube_vis": (2, 3, 1),
}


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in video_trees.TREES.items()}


@pytest.mark.parametrize("name", FOUND)
def test_every_set_is_read_and_its_files_are_there(trees, name):
    data = videos.build(trees[name] | {"strict": False})
    counts = data.counts()
    assert (counts["classes"], counts["train"], counts["test"]) == FOUND[name] and data.name == name
    assert not any(videos.missing(data).values()) and data.home and data.published
    assert all(str(data.path(example.video)) for examples in data.parts.values() for example in examples)


@pytest.mark.parametrize("name", FOUND)
def test_other_counts_than_published_are_refused_unless_told(trees, name):
    with pytest.raises(UserError, match=r"is not the published one \(.* instead of .*strict=False"):
        videos.build(trees[name])
    data = videos.read(trees[name])
    own = {key: data.counts()[key] for key in data.published}
    assert videos.settle(dataclasses.replace(data, published=own), strict=True).parts == data.parts


def test_published_counts_are_those_of_the_papers():
    assert ssv2.PUBLISHED == {"classes": 174, "train": 168_913, "test": 24_777}
    assert all(sum(split) == 13_320 for split in ucf101.SPLITS.values()) and ucf101.SPLITS[1] == (9_537, 3_783)
    assert hmdb51.PUBLISHED == {"classes": 51, "train": 70 * 51, "test": 30 * 51}
    assert (ava.PUBLISHED["train"], ava.PUBLISHED["test"]) == (235, 64)
    assert (thumos14.TRAIN, thumos14.TEST) == (200, (212, 213))
    assert {name: sum(found.values()) for name, found in action_segmentation.VIDEOS.items()} == {
        "50salads": 50,
        "breakfast": 1_712,
        "gtea": 28,
    }
    assert imagenet_vid.PUBLISHED == {"classes": 30, "train": 3_862, "test": 555}
    assert youtube_vis.PUBLISHED == {"classes": 40, "videos": 2_238}


def test_files_that_are_missing_are_named_or_left_out(tmp_path):
    config = video_trees.hmdb51(tmp_path)
    (tmp_path / "hmdb51_org/catch/catch_a_#1.avi").unlink()
    data = videos.read(config)
    own = dataclasses.replace(data, published={})
    with pytest.raises(UserError, match=r"Of the 2 train examples of 'hmdb51', 1 have no file .*catch_a_#1.*Serre lab"):
        videos.settle(own, strict=True)
    assert [example.name for example in videos.settle(own, strict=False).parts["train"]] == [
        "brush_hair/brush_hair_a_#1.avi"
    ]
    for file in (tmp_path / "hmdb51_org").glob("*/*_b;2.avi"):
        file.unlink()
    with pytest.raises(UserError, match=r"Of the 2 test examples of 'hmdb51', 2 have no file"):
        videos.settle(own, strict=False)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "ucf102", "root": "x"}, "Unknown video data set 'ucf102'.*'ucf101'"),
        ({"name": "ucf101"}, "needs the option 'root'"),
        ({"name": "ucf101", "root": "nowhere"}, "no data folder 'nowhere'.*ucfTrainTestlist.*Center for Research"),
        (
            {"name": "ucf101", "root": ".", "splits": 1},
            "Unknown option of the video data set 'ucf101' 'splits'.*'split'",
        ),
        ({"name": "ucf101", "root": ".", "split": 4}, "Unknown split of ucf101 '4'; legal values: 1, 2, 3"),
        ({"name": "gtea", "root": ".", "split": 5}, "Unknown split of gtea '5'"),
        ({"name": "ssv2", "root": "configs"}, "has no something-something-v2-labels.json or labels/labels.json"),
        ({"name": "youtube_vis", "root": ".", "held_out": 1.0}, "held_out"),
    ],
)
def test_bad_options_are_one_sentence(config, message, tmp_path):
    if config["name"] == "youtube_vis":
        config = config | {"root": video_trees.youtube_vis(tmp_path)["root"]}
    with pytest.raises(UserError, match=message):
        videos.build(config)


def test_ssv2_labels_are_templates_without_brackets_in_the_order_of_the_file(trees):
    data = videos.read(trees["ssv2"])
    assert data.class_names == ("Closing something", "Holding something next to something", "Opening something")
    assert {e.name: int(e.labels["label"]) for e in data.parts["train"]} == {"101": 0, "102": 1, "103": 2, "104": 0}
    assert data.parts["test"][0].video == "20bn-something-something-v2/205.webm"


def test_ucf101_reads_both_spellings_of_its_odd_class(trees):
    data = videos.read(trees["ucf101"])
    odd = [e.video for e in data.parts["test"] if e.labels["label"] == 1]
    assert odd == ["UCF-101/HandstandPushups/v_HandStandPushups_g03_c01.avi"]
    assert video_file.length(data.path(odd[0])) == 12


def test_hmdb51_codes_choose_the_parts(trees):
    data = videos.read(trees["hmdb51"])
    assert [e.name.split("/")[1][-8:] for e in data.parts["test"]] == ["_b;2.avi"[-8:]] * 2
    assert not any("_c.avi" in e.name for examples in data.parts.values() for e in examples)


def test_ava_joins_actions_of_a_box_drops_excluded_key_frames_and_names_the_scored(trees):
    data = videos.read(trees["ava"])
    first, second = data.parts["train"]
    assert (first.name, first.second, second.name) == ("-5KQ66BBWC4,0902", 2.0, "-5KQ66BBWC4,0904")
    assert first.labels["label"].astype(int).tolist() == [[1, 0, 1], [0, 1, 0]] and data.scored == (0, 2)
    np.testing.assert_allclose(first.labels["box"][0], [0.077, 0.151, 0.283, 0.811], rtol=1e-6)
    assert second.labels["box"].shape == (1, 4) and data.parts["test"][0].video == "videos/1j20qq1JyX4"
    assert data.notes == ("train: 1 excluded key frames left out", "train: 1 boxes without area left out")


def test_ava_kinetics_finds_the_clip_that_spans_a_key_frame(trees):
    data = videos.read(trees["ava_kinetics"])
    assert [(e.video, e.second) for e in data.parts["train"]] == [
        ("videos/train/abc_d_000080_000090.mp4", 2.5),
        ("videos/train/abc_d_000010_000020.mp4", 1.0),
    ]
    assert data.notes == ("train: 1 key frames without labels left out",)
    both = videos.read(trees["ava_kinetics"] | {"ava_root": trees["ava"]["root"], "ava_start": 900.0})
    assert both.counts()["train"] == 3 and not any(videos.missing(both).values())


def test_thumos14_segments_are_seconds_and_classes_in_the_order_of_their_numbers(trees):
    data = videos.read(trees["thumos14"])
    assert data.class_names == ("BaseballPitch", "CliffDiving")
    assert data.parts["train"][0].labels["segment"].tolist() == [[1.0, 4.0], [6.5, 9.0]]
    assert data.parts["train"][0].labels["label"].tolist() == [1, 0]
    assert data.published["test"] == (212, 213)
    with pytest.raises(UserError, match="The test part of 'thumos14' is empty"):
        videos.read(trees["thumos14"] | {"drop": ("video_test_0000004",)})


def test_background_is_a_class_of_exactly_that_name(trees):
    read = {name: videos.read(trees[name]) for name in ("50salads", "breakfast", "gtea")}
    assert {name: data.background for name, data in read.items()} == {"50salads": (), "breakfast": (), "gtea": (2,)}
    labels = read["50salads"].parts["test"][0].labels["label"]
    text = (read["50salads"].root / "groundTruth/rgb-02-1.txt").read_text().split()
    assert [read["50salads"].class_names[i] for i in labels] == text


def test_imagenet_vid_makes_tracks_and_trains_on_marked_frames(trees):
    data = videos.read(trees["imagenet_vid"])
    train, test = data.parts["train"][0], data.parts["test"][0]
    assert len(train.files) == 2 and len(test.files) == 4
    assert test.labels["valid"].tolist() == [[True, False], [True, True], [True, True], [True, True]]
    assert test.labels["label"].tolist() == [0, 1]
    np.testing.assert_allclose(test.labels["box"][2, 1] * [48, 32, 48, 32], [4, 3, 24, 13], rtol=1e-6)
    whole = videos.read(trees["imagenet_vid"] | {"sampled": False})
    assert len(whole.parts["train"][0].files) == 4


def test_youtube_vis_masks_come_back_and_the_test_part_is_carved(trees):
    data = videos.read(trees["youtube_vis"])
    example = data.parts["train"][0]
    assert example.masks[0][1] is None and example.masks[1][:2] == [None, None]
    np.testing.assert_array_equal(videos.rle.decode(example.masks[0][2]), video_trees.square(2))
    again = videos.read(trees["youtube_vis"])
    assert [e.name for e in again.parts["test"]] == [e.name for e in data.parts["test"]]
    assert data.notes == ("test: 1 of the training videos; the official one is hidden",)


def edit(path, change):
    """Change the JSON of a file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def replace(path, old, new):
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new).encode())


VID = "annotations/imagenet_vid_train.json"
WRONG = [
    (
        "ssv2",
        "something-something-v2-train.json",
        lambda p: replace(p, "Closing [", "Closng ["),
        "Did you mean 'Closing",
    ),
    ("ssv2", "something-something-v2-train.json", lambda p: p.write_text("{}"), "holds no list"),
    ("ssv2", "something-something-v2-train.json", lambda p: p.write_text('[{"id": "1"}]'), "lacks 'template'"),
    ("ssv2", "something-something-v2-labels.json", lambda p: p.write_text("{"), "no JSON"),
    ("ssv2", "something-something-v2-labels.json", lambda p: replace(p, '"2"', '"3"'), "not numbered 0, 1, ..."),
    (
        "ucf101",
        "ucfTrainTestlist/testlist01.txt",
        lambda p: replace(p, "ApplyEyeMakeup/", "Eye/"),
        "Unknown label .*'Eye'",
    ),
    ("ucf101", "ucfTrainTestlist/trainlist01.txt", lambda p: replace(p, " 2", " 1"), "must look like"),
    ("ucf101", "ucfTrainTestlist/testlist01.txt", lambda p: p.unlink(), "Cannot read the annotations.*No such file"),
    ("ucf101", "ucfTrainTestlist/testlist01.txt", lambda p: p.write_text(""), "test part of 'ucf101' is empty"),
    ("ucf101", "ucfTrainTestlist/trainlist01.txt", lambda p: replace(p, "g02", "g01"), "lists .*g01_c01.avi' twice"),
    ("hmdb51", "testTrainMulti_7030_splits/catch_test_split1.txt", lambda p: replace(p, "avi 0", "avi 3"), "Line 3 of"),
    ("ava", "annotations/ava_train_v2.2.csv", lambda p: replace(p, ",3,1", ",4,1"), r"Action 4 .*legal are 1 to 3"),
    ("ava", "annotations/ava_train_v2.2.csv", lambda p: replace(p, "0.811", "1.2"), "must lie in the frame"),
    ("ava", "annotations/ava_train_v2.2.csv", lambda p: replace(p, "0.811", "nan"), "must lie in the frame"),
    ("ava", "annotations/ava_train_v2.2.csv", lambda p: replace(p, "0.811", "tall"), "no four numbers"),
    ("ava", "annotations/ava_train_v2.2.csv", lambda p: replace(p, "0904", "1904"), "not within seconds"),
    ("ava", ava.ACTIONS, lambda p: replace(p, "label_id: 1", "label_id: 9"), "not numbered 1, 2, ..."),
    ("ava", ava.SCORED, lambda p: replace(p, "dance", "sing"), "Action 3 of .* is not that of"),
    ("ava_kinetics", "kinetics_val_v1.0.csv", lambda p: replace(p, "3.5", "soon"), "Line 1 of .*'ghi,soon"),
    ("thumos14", "annotations/thumos14.json", lambda p: replace(p, '"Test"', '"Tset"'), "Unknown subset .*'test'"),
    ("thumos14", "annotations/thumos14.json", lambda p: replace(p, "[6.5, 9.0]", "[9.5, 9.0]"), "second 9.5 to 9"),
    ("thumos14", "annotations/thumos14.json", lambda p: replace(p, "[3.0, 5.0]", "[13.0, 15.0]"), "the video lasts 12"),
    ("thumos14", "annotations/thumos14.json", lambda p: edit(p, lambda c: c.pop("database")), "lacks 'database'"),
    (
        "thumos14",
        "annotations/thumos14.json",
        lambda p: edit(p, lambda c: c["database"]["video_test_0000004"].update(annotations=[])),
        "'video_test_0000004' has no segments",
    ),
    ("gtea", "gtea/groundTruth/S1_Cheese_C1.txt", lambda p: replace(p, "take", "tke"), "Unknown label .*'tke'.*'take'"),
    ("gtea", "gtea/groundTruth/S1_Cheese_C1.txt", lambda p: p.write_text("\n"), "ground truth .* is empty"),
    ("gtea", "gtea/mapping.txt", lambda p: replace(p, "1 open", "1"), "Line 2 of .*'0 cut_tomato'"),
    ("gtea", "gtea/splits/test.split1.bundle", lambda p: replace(p, "S2", "S1"), "trains and tests in split 1"),
    ("imagenet_vid", VID, lambda p: replace(p, "[10, 5, 38, 27]", "[10, 5, 41, 27]"), "must lie in the frame"),
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
    ("youtube_vis", "train.json", lambda p: replace(p, "[32, 48]", "[48, 32]"), "no run-length code of 32 x 48"),
    ("youtube_vis", "train.json", lambda p: edit(p, lambda c: c["annotations"][0].update(category_id=3)), "class 3"),
]


@pytest.mark.parametrize(("name", "file", "spoil", "message"), WRONG)
def test_wrong_annotations_are_one_sentence(name, file, spoil, message, tmp_path, monkeypatch):
    for writer in ("write", "write_pictures"):  # only annotations are read here
        monkeypatch.setattr(video_trees.clips, writer, lambda *arguments, **options: None)
    config = video_trees.TREES[name](tmp_path)
    spoil(tmp_path / ("annotations" if file.endswith("pbtxt") else "") / file)
    with pytest.raises(UserError, match=message) as caught:
        videos.read(config)
    assert "\n" not in str(caught.value)
