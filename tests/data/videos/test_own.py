"""Videos of one's own: a folder per class, or a table."""

import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import videos
from jax_promptmtl.experiments import check_data
from tests import clips


@pytest.fixture
def root(tmp_path):
    """Two classes of five and two videos, as folders of frames, one of them deeper; and other things."""
    for number in range(4):
        clips.write_pictures(tmp_path / "run" / str(number), 3)
    clips.write_pictures(tmp_path / "run" / "phone" / "x", 3)
    for number in range(2):
        clips.write_pictures(tmp_path / "sit down" / str(number), 3)
    (tmp_path / "run" / "notes.txt").touch()
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def paths(data, part):
    return [example.video for example in data.parts[part]]


def test_a_share_of_every_class_tests(root):
    data = videos.build({"name": "own", "root": str(root), "held_out": 0.4})
    assert data.class_names == ("run", "sit down") and not data.misfits()
    assert data.counts() == {"classes": 2, "train": 4, "test": 3, "videos": 7}
    assert set(paths(data, "train") + paths(data, "test")) >= {"run/phone/x", "run/3", "sit down/0"}
    for part in ("train", "test"):
        assert [int(e.labels["label"]) for e in data.parts[part]] == [int("sit" in path) for path in paths(data, part)]
    other = videos.build({"name": "own", "root": str(root), "held_out": 0.4, "seed": 2})
    assert paths(other, "test") != paths(data, "test")
    assert paths(videos.build({"name": "own", "root": str(root), "held_out": 0.4}), "test") == paths(data, "test")


def test_what_is_not_read_is_counted_and_named(root, capsys):
    for name in ("loose.mp4", "README.md", "run/cover.jpg", "run/a.xyz", "sit down/b.FLV", "@eaDir/x", "run/Thumbs.db"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    config = {"name": "own", "root": str(root)}
    data = videos.build(config)
    assert data.class_names == ("run", "sit down") and data.counts()["videos"] == 8
    assert data.notes == (
        "1 videos lie in no folder of a class and are not read: 'loose.mp4'",
        "4 files are no videos and not read (1 .md, 1 .xyz, 1 .jpg, 1 .txt), such as 'README.md'",
    )
    assert set(data.notes) <= set(check_data.check({"data": config}, fast=True).remarks)


def test_a_class_without_videos_says_why(root):
    (root / "walk").mkdir()
    with pytest.raises(UserError, match=r"Classes 'walk' have no video in .*: their folders are empty"):
        videos.build({"name": "own", "root": str(root)})
    (root / "walk/a.xyz").touch()
    with pytest.raises(UserError, match=r"have no video in .*: 1 file is no video and not read \(1 .xyz\), such as"):
        videos.build({"name": "own", "root": str(root)})


def test_a_table_says_what_trains_and_what_tests(root):
    (root / "labels.csv").write_text("path;class;part\nrun/0;go;train\nrun/1;go;test\nsit down/0;rest;train\n")
    data = videos.build({"name": "own", "root": str(root / "labels.csv")})
    assert data.class_names == ("go", "rest") and paths(data, "train") == ["run/0", "sit down/0"]
    assert paths(data, "test") == ["run/1"] and data.path("run/1").is_dir()


def test_mistakes_are_one_sentence(root, tmp_path):
    for options, message in (
        ({"held_out": 1.0}, "data.held_out is 1.0"),
        ({"root": str(root / "nowhere")}, "There is no data folder .*nowhere"),
        ({"root": str(root / ".hidden")}, "has no classes; expected subfolders"),
    ):
        with pytest.raises(UserError, match=message):
            videos.build({"name": "own", "root": str(root)} | options)
    clips.write_pictures(root / "walk" / "0", 3)
    with pytest.raises(UserError, match=r"Classes need two videos, .* 'walk \(1\)'"):
        videos.build({"name": "own", "root": str(root)})
    table = root / "labels.csv"
    table.write_text("path,class,task\nrun/0,go,a\nrun/1,go,b\n")
    with pytest.raises(UserError, match="has the tasks 'a', 'b'; videos have one"):
        videos.build({"name": "own", "root": str(table)})
    table.write_text("path,class,part\nrun/0,go,train\nrun/1,go,train\nrun/9,go,test\n")
    with pytest.raises(UserError, match=r"Of the 1 test examples of 'own', 1 have no file in .*, such as 'run/9'; get"):
        videos.build({"name": "own", "root": str(table)})
