"""Every official layout, as a miniature with real files: what the loaders make of it, and what they refuse."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import videos
from jax_promptmtl.data.videos import (
    action_segmentation,
    ava,
    hmdb51,
    imagenet_vid,
    rle,
    soundness,
    ssv2,
    thumos14,
    ucf101,
    video_file,
    youtube_vis,
)
from tests import video_trees
from tests.video_trees import edit, replace

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


def test_ava_seconds_of_own_movies_are_no_published_ones(tmp_path, annotations_only):
    config = video_trees.ava(tmp_path)
    replace(tmp_path / "annotations/ava_train_v2.2.csv", "0904", "1904")
    data = videos.read(config)
    assert [e.second for e in data.parts["train"]] == [2.0, 1004.0] and "key frames outside" in data.misfits()[0]
    with pytest.raises(UserError, match=r"1 train key frames outside seconds 902 to 1798 .*1904. instead of none"):
        videos.settle(dataclasses.replace(data, published={}), strict=True)


def test_ava_takes_the_one_video_of_an_id(tmp_path):
    config = video_trees.ava(tmp_path)
    (tmp_path / "videos/-5KQ66BBWC4.txt").touch()
    (tmp_path / "videos/-5KQ66BBWC4").mkdir()
    assert {e.video for e in videos.read(config).parts["train"]} == {"videos/-5KQ66BBWC4.mkv"}
    (tmp_path / "videos/-5KQ66BBWC4.MP4").touch()
    with pytest.raises(UserError, match=r"has '-5KQ66BBWC4.MP4' and '-5KQ66BBWC4.mkv' for one video"):
        videos.read(config)


def test_ava_reads_a_second_in_all_its_spellings(tmp_path, annotations_only):
    config = video_trees.ava(tmp_path)
    table = tmp_path / "annotations/ava_train_v2.2.csv"
    table.write_text("v,0902,0.1,0.2,0.3,0.4,1,1\nv,902.0,0.10,0.2,0.3,0.4,2,1\n")
    (example,) = videos.read(config).parts["train"]
    assert example.name == "v,0902" and example.labels["label"].tolist() == [[True, True, False]]


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
    assert data.published["test"] == (212, 213) and not data.notes
    (note,) = videos.read(trees["thumos14"] | {"drop": ("video_test_4",)}).notes
    assert note == "data.drop names videos that thumos14.json has not: 'video_test_4'"
    with pytest.raises(UserError, match="The test part of 'thumos14' is empty"):
        videos.read(trees["thumos14"] | {"drop": ("video_test_0000004",)})


def test_opentad_files_have_no_numbers_no_durations_and_hidden_labels(tmp_path, annotations_only):
    config = video_trees.thumos14(tmp_path)
    path = tmp_path / "annotations/thumos14.json"

    def change(content):
        videos = list(content["database"].values())
        for video, subset in zip(videos, ("training", "training", "validation"), strict=True):
            video.update(subset=subset, frame=360)
            for key in ("duration", "fps"):
                del video[key]
            for action in video["annotations"]:
                del action["label_id"]
        content["database"]["hidden"] = {"subset": "testing", "annotations": None}

    edit(path, change)
    path.rename(path.with_name("thumos_14_anno.json"))
    data = videos.read(config)
    assert data.class_names == ("BaseballPitch", "CliffDiving") and data.counts()["train"] == 2
    assert [e.name for e in data.parts["test"]] == ["video_test_0000004"]
    assert data.notes == ("1 videos whose labels are hidden left out",)
    (path.parent / "category_idx.txt").write_text("Diving\nCliffDiving\nBaseballPitch\n")
    assert videos.read(config).parts["test"][0].labels["label"].tolist() == [1]
    (path.parent / "category_idx.txt").write_text("CliffDiving\n")
    with pytest.raises(UserError, match=r"Unknown label of .*BaseballPitch"):
        videos.read(config)


def test_thumos14_keeps_rate_and_duration_and_names_what_is_peculiar(tmp_path, annotations_only):
    config = video_trees.thumos14(tmp_path)
    first, _, last = ("video_validation_0000051", "video_validation_0000052", "video_test_0000004")

    def change(content):
        content["database"][first].update(fps=25, duration=8.5)
        content["database"][last].update(fps=None, duration=None)

    edit(tmp_path / "annotations/thumos14.json", change)
    data = videos.read(config)
    assert [(e.rate, e.duration) for part in data.parts.values() for e in part] == [(25, 8.5), (30, 12), (0, 0)]
    assert data.notes == (
        "frames per second: not told, 25, 30",
        f"1 videos have a segment that ends after them, such as {first}",
    )


def test_names_of_mapping_may_have_spaces(tmp_path, annotations_only):
    config = video_trees.gtea(tmp_path)
    for file in [tmp_path / "gtea/mapping.txt", *(tmp_path / "gtea/groundTruth").iterdir()]:
        file.write_text(file.read_text().replace("open", "open the jar"))
    data = videos.read(config)
    assert data.class_names == ("take", "open the jar", "background")
    text = (tmp_path / "gtea/groundTruth/S2_Cheese_C1.txt").read_text().splitlines()
    assert [data.class_names[i] for i in data.parts["test"][0].labels["label"]] == text


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


def test_imagenet_vid_leaves_crowds_out_and_refuses_what_is_twice(tmp_path, annotations_only):
    config = video_trees.imagenet_vid(tmp_path)
    path = tmp_path / "annotations/imagenet_vid_val.json"
    edit(path, lambda c: c["annotations"][0].update(iscrowd=1))
    data = videos.read(config)
    assert data.parts["test"][0].labels["valid"][0].tolist() == [False, False]
    assert data.notes == ("1 crowds left out",) and data.parts["test"][0].size == (32, 48)
    for change, message in (
        (lambda c: c["images"][1].update(id=1), "several images of one id"),
        (lambda c: c["images"][1].update(frame_id=0), "has a frame_id twice"),
        (lambda c: c["images"][1].update(height=31), "in several sizes"),
        (lambda c: c["annotations"][2].update(instance_id=0, category_id=1), "is twice in one frame"),
        (lambda c: c["annotations"][2].update(bbox=None), r"annotations\[2\].bbox: expected array, got null"),
    ):
        before = path.read_text()
        edit(path, change)
        with pytest.raises(UserError, match=message):
            videos.read(config)
        path.write_text(before)


@pytest.mark.parametrize(
    ("name", "file", "count"), [("flying_disc", "train.json", 2_985), ("Poultry", "annotations_train.json", 607)]
)
def test_youtube_vis_editions_are_told_by_their_classes(tmp_path, annotations_only, name, file, count):
    config = video_trees.youtube_vis(tmp_path)
    edit(tmp_path / "train.json", lambda c: c["categories"][0].update(name=name))
    (tmp_path / "train.json").rename(tmp_path / file)
    data = videos.read(config)
    assert data.published["videos"] == count and "these are the counts of" in data.notes[-1]


@pytest.mark.parametrize("name", ["imagenet_vid", "youtube_vis"])
def test_frames_of_another_size_than_annotated_are_named(tmp_path, name):
    config = video_trees.TREES[name](tmp_path)
    for file in (tmp_path / ("Data" if name == "imagenet_vid" else "train/JPEGImages")).rglob("*.[Jj]*"):
        Image.new("RGB", (64, 32)).save(file)
    data = videos.read(config)
    looks = [soundness.look_at(data, [example]) for part in data.parts.values() for example in part]
    assert all("are 64 x 32 pixels, but the annotations have 48 x 32" in look.fault for look in looks)


def test_youtube_vis_masks_come_back_and_the_test_part_is_carved(trees):
    data = videos.read(trees["youtube_vis"])
    example = data.parts["train"][0]
    assert example.masks[0][1] is None and example.masks[1][:2] == [None, None]
    np.testing.assert_array_equal(rle.decode(example.masks[0][2]), video_trees.square(2))
    again = videos.read(trees["youtube_vis"])
    assert [e.name for e in again.parts["test"]] == [e.name for e in data.parts["test"]]
    assert data.notes == ("test: 1 of the training videos; the official one is hidden",)
