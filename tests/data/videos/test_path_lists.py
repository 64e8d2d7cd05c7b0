"""Lists of paths and labels without a head, as VideoMAE, mmaction2 and others write them."""

import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import videos
from tests import clips

NAMES = [f"{kind} {number}" for kind in ("walk", "run") for number in range(3)]


@pytest.fixture
def root(tmp_path):
    """Six videos, files by their names only, in a folder `videos`; two folders of frames beside it."""
    (tmp_path / "videos").mkdir()
    for name in NAMES:
        (tmp_path / "videos" / f"{name}.mp4").touch()
    for number in range(2):
        clips.write_pictures(tmp_path / "frames" / str(number), 3)
    return tmp_path


def write(path, rows, separator=" "):
    path.write_text("".join(separator.join(map(str, row)) + "\n" for row in rows))
    return path


def videos_of(data, part):
    return {e.video: data.class_names[int(e.labels["label"])] for e in data.parts[part]}


ROWS = [(f"videos/{name}.mp4", 10 * (name < "s") + 2) for name in NAMES]


@pytest.mark.parametrize("separator", [" ", "  ", ",", ", ", ";", "\t"])
@pytest.mark.parametrize(
    "names", [("train.csv", "test.csv"), ("train.txt", "val.txt"), ("ssv2_train_list.txt", "ssv2_val_list.txt")]
)
def test_a_list_and_its_partner(root, separator, names):
    write(root / names[0], ROWS[:2] + ROWS[3:5], separator)
    write(root / names[1], ROWS[2:3] + ROWS[5:], separator)
    for place in (root, root / names[0]):
        data = videos.build({"name": "own", "root": str(place)})
        assert data.class_names == ("2", "12")  # in the order of numbers
        assert videos_of(data, "train") == {video: str(label) for video, label in ROWS[:2] + ROWS[3:5]}
        assert videos_of(data, "test") == {video: str(label) for video, label in ROWS[2:3] + ROWS[5:]}
        assert data.notes == (f"{names[0]!r} says what trains, {names[1]!r} what tests",)


def test_of_two_partners_the_test_list_tests(root):
    for name, rows in (("train.csv", ROWS[1:5]), ("val.csv", ROWS[:1]), ("test.csv", ROWS[5:])):
        write(root / name, rows)
    assert set(videos_of(videos.build({"name": "own", "root": str(root)}), "test")) == {ROWS[5][0]}


def test_a_list_alone_holds_videos_out(root):
    data = videos.build({"name": "own", "root": str(write(root / "all.txt", ROWS)), "held_out": 0.3})
    assert data.counts() == {"classes": 2, "train": 4, "test": 2, "videos": 6} and not data.notes


def test_paths_are_below_a_folder_beside_the_list_or_absolute(root):
    short = [(video.removeprefix("videos/"), label) for video, label in ROWS]
    data = videos.build({"name": "own", "root": str(write(root / "a.txt", short))})
    assert {video.rpartition("/")[0] for part in data.parts for video in videos_of(data, part)} == {"videos"}
    whole = [(root / video, label) for video, label in ROWS]
    videos.build({"name": "own", "root": str(write(root / "a.txt", whole))})


def test_folders_of_frames_with_their_number(root):
    write(root / "train.txt", [("frames/0", 3, 0)])
    write(root / "val.txt", [("frames/1", 3, 0)])
    data = videos.build({"name": "own", "root": str(root)})
    assert set(videos_of(data, "train")) == {"frames/0"} and set(videos_of(data, "test")) == {"frames/1"}
    (root / "frames/0").rename(root / "frames/my clip 7")
    write(root / "train.txt", [("frames/my clip 7", 0)])
    assert set(videos_of(videos.build({"name": "own", "root": str(root)}), "train")) == {"frames/my clip 7"}


def test_labels_are_names_too(root):
    rows = [(video, "jump rope" if label == 2 else "run") for video, label in ROWS]
    data = videos.build({"name": "own", "root": str(write(root / "a.txt", rows, ","))})
    assert data.class_names == ("jump rope", "run")


@pytest.mark.parametrize("rows", [["path,class", "videos/walk 0.mp4,go"], ["class;path", "go;videos/walk 0.mp4"]])
def test_a_head_is_no_video(root, rows):
    (root / "train.csv").write_text("\n".join([*rows, rows[1].replace("0", "1")]))
    assert videos.build({"name": "own", "root": str(root / "train.csv")}).class_names == ("go",)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("file,label\nvideos/walk 0.mp4,1\n", "has no column 'path' but 'file', 'label'"),
        ("videos/walk 0.mp4 1\nvideos/walk_1.mp4\n", "Line 2 of .*'videos/walk_1.mp4'; it must look like"),
        ("videos/walk 0.mp4 1\n\nvideos/walk 0.mp4 2\n", r"Line 3 of .* has 'videos/walk 0.mp4' of line 1 again"),
        ("videos/walk 0.mp4 1 2\nvideos/walk 1.mp4 1\n", "Line 1 of .* has several labels"),
        ("videos/walk 0.mp4,1\nvideos/walk 1.mp4 1\n", "Line 2 of .*it must look like"),
        ("videos/walk 0.mp4 1\nvideos/walk 9.mp4 1\n", "have no file in .*walk 9.mp4"),
        ("", "has no column"),
    ],
)
def test_what_is_wrong_is_one_sentence(root, lines, message):
    (root / "a.csv").write_text(lines)
    with pytest.raises(UserError, match=message) as caught:
        videos.build({"name": "own", "root": str(root / "a.csv")})
    assert "\n" not in str(caught.value)


def test_lists_that_do_not_fit_are_refused(root):
    write(root / "train.csv", ROWS[:2])
    write(root / "test.csv", ROWS[4:])
    with pytest.raises(UserError, match=r"Classes '12' of .*test.csv' have no video to train in 'train.csv'"):
        videos.build({"name": "own", "root": str(root)})
    write(root / "trainlist01.txt", ROWS[:4])
    write(root / "testlist01.txt", ROWS[4:])
    with pytest.raises(UserError, match=r"several lists to train on, 'train.csv' and 'trainlist01.txt'; give one"):
        videos.build({"name": "own", "root": str(root)})
    assert videos.build({"name": "own", "root": str(root / "trainlist01.txt")}).counts()["test"] == 2
