"""Trees are read as what they are, and what has two readings is refused with both."""

import os

import numpy as np
import pytest
from PIL import Image

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import suites
from jax_promptmtl.data.suites import tree


def make(root, *folders, count=4):
    """Write pictures into folders, each of its own grey."""
    for number, folder in enumerate(folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (6, 5), (number, i, 0)).save(root / folder / f"{i}.png")
    return root


def build(root, **options):
    return suites.build({"name": "folder", "root": str(root), "shots": 2} | options)


def contents(suite):
    return {task.name: (task.class_names, len(task.train), len(task.test)) for task in suite.tasks}


def test_classes_alone_are_one_task(tmp_path):
    root = make(tmp_path / "pets", "cat", "dog", "dog/young")
    (root / "dog" / "young" / "9.png").write_bytes((root / "cat" / "0.png").read_bytes())
    assert contents(build(root)) == {"pets": (("cat", "dog"), 4, 9)}


def test_parts_of_one_task(tmp_path):
    root = make(
        tmp_path / "pets", *(f"{part}/{name}" for part in ("train", "Valid", "test") for name in ("cat", "dog"))
    )
    suite = build(root)
    assert contents(suite) == {"pets": (("cat", "dog"), 4, 8)}
    assert {name.split("/")[0] for name in suite.tasks[0].train.names} == {"train"}
    assert {name.split("/")[0] for name in suite.tasks[0].test.names} == {"test"}
    tune = build(root, evaluate_on="tune")
    assert {name.split("/")[0] for name in tune.tasks[0].test.names} == {"Valid"}
    assert tune.tasks[0].train.names == suite.tasks[0].train.names


def test_parts_of_several_tasks(tmp_path):
    make(tmp_path, *(f"{t}/{part}/{c}" for t in ("ink", "oil") for part in ("train", "test") for c in ("cat", "dog")))
    make(tmp_path, "oil/val/cat")
    assert contents(build(tmp_path)) == {"ink": (("cat", "dog"), 4, 8), "oil": (("cat", "dog"), 4, 8)}


def test_training_alone_is_drawn_from_and_testing_alone_is_for_zero_shot(tmp_path):
    assert contents(build(make(tmp_path / "a", "train/cat", "train/dog"))) == {"a": (("cat", "dog"), 4, 4)}
    assert contents(build(make(tmp_path / "b", "test/cat", "test/dog"))) == {"b": (("cat", "dog"), 0, 8)}


def test_a_class_called_train_is_a_class(tmp_path):
    make(tmp_path, "real/train", "real/truck", "sketch/train", "sketch/truck")
    assert contents(build(tmp_path))["real"] == (("train", "truck"), 4, 4)


def test_a_picture_beside_the_classes_is_passed_over_and_said(tmp_path):
    make(tmp_path, "ink", "ink/cat", "ink/dog", "oil/cat", "oil/dog", count=3)
    (tmp_path / "oil" / "cat" / "notes.txt").write_text("x")
    (note,) = build(tmp_path).notes
    assert note.startswith("passed over 4 files that no class has: 'ink/0.png'") and "oil/cat/notes.txt" in note


@pytest.mark.parametrize(
    "folders, message",
    [
        (["pets/furry/cat", "pets/bald/eel"], r"'pets/bald' is a class, .*=task/class\); or 'eel' .*=task/\*/class\)"),
        (["train/furry/cat", "test/furry/cat"], r"'test/furry' is a class.*=part/class\); .*=part/task/class\)"),
        (["a/train/furry/cat", "a/test/furry/cat"], r"=task/part/class\); .*=task/part/\*/class\)"),
        (["ink", "ink/cat", "oil", "oil/cat"], r"'ink' is a class.*=class\); or 'cat' is a class .*=task/class\)"),
        (["cat", "dog/old", "eel/old"], "'cat' in .* have pictures, 'dog', 'eel' have folders with pictures"),
        (["train/cat", "test/cat", "extra/cat"], "'test', 'train' in .* are called like parts, 'extra' are not"),
        (["a/train", "a/test"], "called like parts with pictures and no classes"),
        (["train", "test"], "have no folders of classes"),
        (["val/cat", "valid/cat", "train/cat"], "'val', 'valid' .* one part under two names"),
        (["."], "are in no class"),
    ],
)
def test_two_readings_or_none_are_refused(tmp_path, folders, message):
    make(tmp_path, *folders)
    with pytest.raises(UserError, match=message):
        build(tmp_path)


def test_the_layout_can_be_said(tmp_path):
    root = make(tmp_path / "zoo", "pets/furry/cat", "pets/bald/eel", "wild/furry/fox", "wild/bald/snake")
    assert contents(build(root, layout="task/class"))["pets"] == (("bald", "furry"), 4, 4)
    assert contents(build(root, layout="task/*/class"))["pets"] == (("cat", "eel"), 4, 4)
    assert contents(build(root, layout="*/*/class")) == {"zoo": (("cat", "eel", "fox", "snake"), 8, 8)}
    assert contents(build(root, layout="class")) == {"zoo": (("pets", "wild"), 4, 12)}
    make(root, "wild/bald/cat")
    with pytest.raises(UserError, match=r"bald/cat' are both the class 'cat'|furry/cat' are both the class 'cat'"):
        build(root, layout="*/*/class", shots=1)


@pytest.mark.parametrize("layout", ["task", "class/task", "task/part/part/class", "job/class", "/class"])
def test_other_layouts_are_refused(tmp_path, layout):
    make(tmp_path, "ink/cat")
    with pytest.raises(UserError, match=r"The layout .* is none"):
        build(tmp_path, layout=layout)


def test_tasks_without_a_common_class_may_be_superclasses(tmp_path):
    make(tmp_path, "pets/cat", "pets/dog", "cars/van")
    (note,) = build(tmp_path).notes
    assert "have no class in common" in note and "suite.layout=*/class" in note
    make(tmp_path, "cars/dog")
    assert not build(tmp_path, shots=1).notes


def test_names_of_classes_in_a_file(tmp_path):
    root = make(tmp_path / "net", "n01440764", "n01443537", "sea bass", "0001")
    assert "3 classes say nothing to a text tower ('0001'" in build(root).notes[0]
    (root / "classnames.txt").write_text("n01440764 tench\nn01443537\tgold  fish\nsea bass the bass\nn9 cat\n")
    suite = build(root)
    assert suite.tasks[0].class_names == ("0001", "tench", "gold fish", "the bass")
    assert "lines of no class of the data, such as 'n9 cat'" in suite.notes[0] and "('0001')" in suite.notes[1]
    (root / "classnames.txt").write_text("n01440764 tench\nn01440764 pike\n")
    with pytest.raises(UserError, match=r"Line 2 of .* names 'n01440764' twice"):
        build(root)


def test_names_of_one_tasks_classes(tmp_path):
    make(tmp_path, "ink/01", "oil/01")
    (tmp_path / "classnames.txt").write_text("01 cat\n")
    (tmp_path / "oil" / "classnames.txt").write_text("01 dog\n")
    assert [task.class_names for task in build(tmp_path).tasks] == [("cat",), ("dog",)]


def test_names_that_are_no_utf_8(tmp_path):
    root = os.fsencode(tmp_path)
    place = os.path.join(root, b"ink", b"caf\xe9")
    os.makedirs(place)
    for number in range(4):
        with open(os.path.join(place, b"\xff%d.png" % number), "wb") as file:
            Image.new("RGB", (5, 5), (number, 0, 0)).save(file, "png")
    for _ in range(2):
        (task,) = build(tmp_path).tasks
        assert task.class_names == ("café",) and len(task.train) == 2
        shown = [task.train[0], task.train[1], task.test[0], task.test[1]]
        assert {int(example["image"][0, 0, 0]) for example in shown} == set(range(4))
    assert not [name for name in os.listdir(root) if name.endswith(b".tmp")]


def test_a_manifest_that_cannot_be_written_leaves_no_temporary_file(tmp_path, monkeypatch):
    make(tmp_path, "ink/cat")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(UserError, match="No space left"):
        build(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["ink"]


def test_reading_is_the_suites(tmp_path):
    make(tmp_path, "ink/cat")
    ink = np.zeros((5, 6, 4), np.uint8)
    for file in (tmp_path / "ink" / "cat").iterdir():
        Image.fromarray(ink).save(file)
    for background, grey in (("white", 255), ("#0000ff", 85), ("none", 0)):
        suite = build(tmp_path, background=background)
        assert suite.tasks[0].train[0]["image"].mean() == grey and suite.reading.background == background
    with pytest.raises(UserError, match="is no colour"):
        build(tmp_path, background="glass")
    with pytest.raises(UserError, match="too large"):
        build(tmp_path, megapixels=1e-5).tasks[0].train[0]
    with pytest.raises(UserError, match="must be positive"):
        build(tmp_path, megapixels=0)


def test_a_look_at_levels_reads_no_file(tmp_path, monkeypatch):
    make(tmp_path, "ink/cat", "oil/cat")
    monkeypatch.setattr(Image, "open", pytest.fail)
    assert tree.recognise(tmp_path) == "task/class"
