"""A look at data before training: whole and spoiled miniatures of every video set, and folders of images."""

import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from jax_promptmtl import check_data as door
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import suites, videos
from jax_promptmtl.experiments import check_data
from tests import clips, tiny, video_trees

pytest.importorskip("av")


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in video_trees.TREES.items()}


@pytest.mark.parametrize("name", video_trees.TREES)
def test_a_whole_set_has_no_problems_but_its_size(trees, name):
    found = check_data.check({"data": trees[name] | {"strict": False}})
    assert not found.problems and any("the shortest has" in remark for remark in found.remarks)
    data = videos.read(trees[name])
    rows = {line.split()[0]: line.split()[1:] for line in found.text[2:6]}
    assert {what: int(row[0]) for what, row in rows.items()} == data.counts()
    strict = check_data.check({"data": trees[name]}, fast=True)
    assert bool(strict.problems) == bool(data.published)
    assert all("instead of" in problem for problem in strict.problems)


def keep(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def reshape(path, change):
    np.save(path, change(np.load(path)))


UCF = "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g0{}_c01.avi"
FRAME = "Data/VID/val/v_0/000002.JPEG"
SPOILED = [
    ("ucf101", UCF.format(1), lambda p: p.unlink(), r"1 of the train videos are not whole .*g01.*UCF's Center"),
    ("ucf101", UCF.format(1), lambda p: keep(p, 0.85), "is cut off"),
    ("ucf101", UCF.format(3), lambda p: p.write_bytes(b""), r"is empty \(0 bytes\)"),
    ("ssv2", "20bn-something-something-v2/101.webm", lambda p: p.write_bytes(b"x" * 999), "cannot be read"),
    ("ava", "videos/-5KQ66BBWC4.mkv", lambda p: clips.write(p, 30, rate=10), "but second 4 is labelled"),
    ("ava", "videos/1j20qq1JyX4/1j20qq1JyX4_000007.jpg", lambda p: p.unlink(), "side by side"),
    ("ava_kinetics", "videos/train/ghi_000000_000010.mp4", lambda p: p.unlink(), r"'videos/ghi_\*'"),
    ("thumos14", "i3d_features/video_test_0000004.npy", lambda p: p.write_bytes(b"x"), "no .npy file"),
    ("thumos14", "i3d_features/video_test_0000004.npy", lambda p: reshape(p, np.transpose), r"\[T, 12\] is wanted"),
    (
        "gtea",
        "gtea/features/S1_Cheese_C1.npy",
        lambda p: reshape(p, lambda x: x[:, :9]),
        "9 features, but labels for 30",
    ),
    ("imagenet_vid", FRAME, lambda p: p.unlink(), "1 of the test videos are not whole"),
    ("imagenet_vid", FRAME, lambda p: keep(p, 0.5), "is broken"),
    (
        "youtube_vis",
        "train/JPEGImages/000a3f",
        lambda p: clips.write_pictures(p, 1, start=5, pattern="{:05d}.jpg", size=(16, 16)),
        "several sizes",
    ),
    (
        "youtube_vis",
        "train.json",
        lambda p: p.write_text(p.read_text().replace('"counts": [', '"counts": [1, ')),
        "no run-length",
    ),
    ("hmdb51", "testTrainMulti_7030_splits", shutil.rmtree, "has no testTrainMulti_7030_splits"),
]


@pytest.mark.parametrize(("name", "file", "spoil", "message"), SPOILED)
def test_what_is_wrong_is_named(name, file, spoil, message, tmp_path):
    config = video_trees.TREES[name](tmp_path) | {"strict": False}
    spoil(tmp_path / file)
    found = check_data.check({"data": config})
    with pytest.raises(AssertionError, match=message):
        raise AssertionError("\n".join(found.problems))


def test_fast_only_asks_whether_files_are_there(tmp_path):
    config = video_trees.ucf101(tmp_path) | {"strict": False}
    keep(tmp_path / UCF.format(1), 0.5)
    assert not check_data.check({"data": config}, fast=True).problems
    (tmp_path / UCF.format(1)).unlink()
    assert len(check_data.check({"data": config}, fast=True).problems) == 1


def test_equal_files_that_train_and_test_are_a_remark(tmp_path):
    config = video_trees.ucf101(tmp_path) | {"strict": False}
    shutil.copy(tmp_path / UCF.format(2), tmp_path / UCF.format(3))
    found = check_data.check({"data": config})
    assert not found.problems and sum("the files are equal" in remark for remark in found.remarks) == 1


def test_a_variable_rate_is_a_remark(tmp_path):
    config = video_trees.ssv2(tmp_path) | {"strict": False}
    video = tmp_path / "20bn-something-something-v2/101.webm"
    clips.write(video, 10, stamps=np.cumsum([0, *[30, 90] * 4, 30]))
    found = check_data.check({"data": config})
    assert not found.problems and any("1 videos have a variable frame rate" in remark for remark in found.remarks)


@pytest.fixture
def folder(tmp_path):
    tiny.save_images(tmp_path / "own")
    return {"suite": {"name": "folder", "root": str(tmp_path / "own"), "shots": 2, "seed": 0}}


def test_own_images_are_counted_by_task_and_class(folder):
    found = check_data.check(folder)
    assert not found.problems and not found.remarks
    assert found.text[:2] == [
        "ink: 3 classes, 6 images to train, 6 images to test",
        "  cat 2 + 2, dog 2 + 2, red fox 2 + 2  (train + test)",
    ]
    assert len(check_data.check(folder, fast=True).text) == 4
    both = check_data.check({"suites": {"a": folder["suite"], "b": folder["suite"]}}, fast=True)
    assert len(both.text) == 8 and not both.problems


def test_own_images_that_are_unreadable_or_twice_are_problems(folder):
    root = pathlib.Path(folder["suite"]["root"])
    check_data.check(folder)  # draws the split
    suite = suites.build(folder["suite"])
    train, test = suite.tasks[0].train.names[0], suite.tasks[0].test.names[0]
    shutil.copy(root / train, root / test)
    shutil.copy(root / "oil/cat/0.png", root / "oil/dog/1.png")
    (root / "pen/cat/3.png").write_bytes(b"no picture")
    Image.open(root / "wax/cat/0.png").save(root / "wax/cat/1.bmp")  # other bytes, equal pixels; not in the split
    problems = check_data.check(folder).problems
    assert len(problems) == 3 and "pen/cat/3.png' is not an image" in problems[0]
    assert problems[1] == f"The same picture trains and tests in task 'ink': {train!r} and {test!r}"
    assert "'oil/cat/0.png'" in problems[2] and "'oil'" in problems[2]


def test_images_that_came_after_the_split_are_a_remark(folder):
    root = pathlib.Path(folder["suite"]["root"])
    check_data.check(folder)  # draws the split
    Image.new("RGB", (9, 9)).save(root / "ink/cat/new.png")
    found = check_data.check(folder, fast=True)
    (remark,) = found.remarks
    assert not found.problems and "1 image " in remark and "'ink/cat/new.png'" in remark and "delete" in remark


def test_images_of_which_no_suite_can_be_made_are_opened_all_the_same(folder):
    root = pathlib.Path(folder["suite"]["root"])
    for i in range(3):
        (root / f"ink/cat/{i}.png").write_bytes(b"" if i else b"no picture")
    found = check_data.check(folder)
    assert "are empty (0 bytes)" in found.problems[0] and "ink/cat: 4 images" in found.text
    assert [problem.count("ink/cat/1.png") for problem in found.problems] == [1, 1, 0, 0]
    assert "ink/cat/0.png' is not an image" in found.problems[3]
    assert len(check_data.check(folder, fast=True).problems) == 3


def test_a_published_suite_that_is_not_whole_is_counted_as_far_as_it_goes(tmp_path):
    for domain in ("Art", "Clipart", "Product", "Real World"):
        for name in ("Bed", "Bike"):
            (tmp_path / domain / name).mkdir(parents=True)
            for i in range(3):
                clips_picture = clips.picture(i + 10 * len(domain) + 3 * len(name))
                Image.fromarray(clips_picture).save(tmp_path / domain / name / f"{i}.png")
    options = {"name": "office_home", "root": str(tmp_path), "shots": 1, "strict": True}
    found = check_data.check({"suite": options})
    assert len(found.problems) == 1 and "lacks the classes 'Alarm_Clock'" in found.problems[0]
    assert found.text[0] == "Art: 2 classes, 2 images to train, 4 images to test"


def test_made_up_data_needs_no_check():
    with pytest.raises(UserError, match="neither `suite`"):
        check_data.check({"clips": {}})


def test_the_command_says_it_in_its_exit_code(tmp_path, capsys):
    config = video_trees.gtea(tmp_path / "data")
    for strict in (False, True):
        body = f"    return ConfigDict({{'data': {config | {'strict': strict}!r}}})\n"
        text = f"from ml_collections import ConfigDict\n\n\ndef get_config():\n{body}"
        (tmp_path / f"strict_{strict}.py").write_text(text)
    assert door.main(["check_data", f"--config={tmp_path / 'strict_False.py'}"]) == 0
    said = capsys.readouterr()
    assert "No problem found." in said.out and not said.err
    assert door.main(["check_data", f"--config={tmp_path / 'strict_True.py'}", "--fast"]) == 2
    said = capsys.readouterr()
    assert "problem: gtea has 3 classes instead of 11" in said.out
    assert said.err == "error: The data has problems (3 listed above).\n"
