"""Labels in a CSV file."""

import os

import pytest
from PIL import Image

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import label_table, suites

LINES = """path,task,class,part,photographer
day/1.png,day,wild cat,train,ann
day/2.png,day,wild cat,test,ann
day/3.png,day,dog,train,bob
night/1.png,night,"dog, small",train,
night/2.png,night,"dog, small",test,
"""


@pytest.fixture
def table(tmp_path):
    """Return the path of a table whose images are there."""
    for number, name in enumerate(("day/1", "day/2", "day/3", "night/1", "night/2")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{name}.png")
    path = tmp_path / "labels.csv"
    path.write_text(LINES)
    return path


def test_reads_tasks_classes_and_parts(table):
    train, test = label_table.read(table)
    assert train == {"day": {"dog": ["day/3.png"], "wild cat": ["day/1.png"]}, "night": {"dog, small": ["night/1.png"]}}
    assert test == {"day": {"dog": [], "wild cat": ["day/2.png"]}, "night": {"dog, small": ["night/2.png"]}}


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_spaces_and_the_mark_of_a_spreadsheet(table, separator):
    lines = ["path,class", "day/1.png, cat ", "", "day/3.png,dog"]
    table.write_bytes("\r\n".join(lines).replace(",", separator).encode("utf-8-sig"))
    train, test = label_table.read(table)
    assert (train, test) == ({"labels": {"cat": ["day/1.png"], "dog": ["day/3.png"]}}, None)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "has no column 'path' but nothing"),
        ("path,label\nday/1.png,x\n", "has no column 'class' but 'path', 'label'"),
        ("path,class\n", "has no line below its head"),
        ("path,class\nday/1.png,\n", "Line 2 of .* has no 'class'"),
        ("path,class\nday/1.png\n", "Line 2 of .* has no 'class'"),
        ("path,class\nday/1.png,x\nday/7.png,x\nday/8.png,x\n", "Line 3 .*'day/7.png', .*, and 1 other lines"),
        ("path,class\nday/1.png,x\nday/1.png,y\n", "Line 3 .* the image 'day/1.png' of line 2 again"),
        ("path,class,part\nday/1.png,x,spare\n", "Unknown part in line 2 .* 'spare'; legal values: .*val"),
        ("path,class,part\nday/1.png,x,train\nday/2.png,y,test\n", "Class 'y' of task 'labels' .* none to train"),
        ("path,class,part\nday/1.png,x,train\n", "Task 'labels' has no image to test"),
        ('path,class\n"day/1.png,x\n', "is not CSV"),
        ("path,class\nday/1.png,great, grey owl\n", "Line 2 of .* has 3 cells for 2 columns; put quotes"),
        ("path,class\nday/1.png,x\nday/2.png,x,\n", "Line 3 of .* has 3 cells for 2 columns"),
        ("path,class,note\nday/1.png,x\n", "Line 2 of .* has 2 cells for 3 columns; give one"),
        ("path,class,class\nday/1.png,x,y\n", "has the column 'class' twice"),
        ("path,class,name\nday/1.png,x,cat\nday/2.png,x,dog\n", "Line 3 .* calls the class 'x' 'dog', .* 'cat'"),
        ("path,class,name\nday/1.png,x,\n", "Line 2 of .* has no 'name'"),
        ("path,class\nday\\1.png,x\nday/1.png,x\n", "Line 3 .* the image 'day/1.png' of line 2 again"),
        ("path,class,part\nday/1.png,x,train\nday/2.png,x,val\n", "no image to test .* set suite.evaluate_on=tune"),
    ],
)
def test_names_what_is_wrong(table, text, message):
    table.write_text(text)
    with pytest.raises(UserError, match=message):
        label_table.read(table)


def test_other_encodings_are_refused(table):
    table.write_bytes("path,class\nday/1.png,fenêtre\n".encode("latin-1"))
    with pytest.raises(UserError, match="save it as CSV in UTF-8"):
        label_table.read(table)


def test_a_suite_of_a_table_trains_and_tests_what_it_says(table):
    suite = suites.build({"name": "folder", "root": str(table), "shots": 1, "seed": 0})
    day, night = suite.tasks
    assert (day.class_names, night.class_names) == (("dog", "wild cat"), ("dog, small",))
    assert (day.train.names, day.test.names) == (("day/3.png", "day/1.png"), ("day/2.png",))
    assert [int(day.train[i]["image"][0, 0, 0]) for i in range(2)] == [2, 0] and day.test[0]["label"] == 1


def test_without_parts_the_shots_are_drawn_and_absolute_paths_are_read(table):
    table.write_text("path,class\n" + "".join(f"{table.parent}/day/{i}.png,cat\n" for i in (1, 2, 3)))
    (task,) = suites.build({"name": "folder", "root": str(table), "shots": 2, "seed": 0}).tasks
    assert (task.name, len(task.train), len(task.test)) == ("labels", 2, 1)
    assert task.test[0]["image"].shape == (4, 4, 3)
    assert (table.parent / "split_shots2_seed0_reserve0_tablelabels.json").is_file()


def test_missing_images_are_left_out_where_that_is_allowed(table):
    table.write_text("path,class\nday/1.png,cat\nday/2.png,cat\nday/9.png,cat\n")
    suite = suites.build({"name": "folder", "root": str(table), "shots": 1, "seed": 0, "strict": False})
    assert suite.left_out == ("day/9.png",)


def test_the_case_of_an_unquoted_comma(table):
    table.write_text("path,class\nday/1.png,great, grey owl\n")
    with pytest.raises(UserError, match="Line 2"):
        label_table.read(table)
    table.write_text('path,class\nday/1.png,"great, grey owl"\n')
    assert list(label_table.contents(table).classes()["labels"]) == ["great, grey owl"]


def test_backslashes_part_folders(table):
    table.write_text("path,class\nday\\1.png,cat\nday\\2.png,dog\n")
    assert label_table.contents(table).parts["train"]["labels"] == {"cat": ["day/1.png"], "dog": ["day/2.png"]}
    (table.parent / "day\\1.png").write_bytes(b"x")  # a name may have one
    assert label_table.contents(table).parts["train"]["labels"]["cat"] == ["day\\1.png"]


def test_a_table_of_tests_alone_is_for_zero_shot(table):
    table.write_text("path,class,part\nday/1.png,cat,test\nday/2.png,dog,testing\n")
    (task,) = suites.build({"name": "folder", "root": str(table), "shots": 1}).tasks
    assert task.class_names == ("cat", "dog") and (len(task.train), len(task.test)) == (0, 2)


def test_a_part_that_tunes(table):
    lines = ["day/1.png,cat,train", "day/2.png,cat,val", "day/3.png,cat,test"]
    table.write_text("path,class,part\n" + "\n".join(lines))
    options = {"name": "folder", "root": str(table), "shots": 1}
    (test,), (tune,) = (suites.build(options | {"evaluate_on": on}).tasks for on in ("test", "tune"))
    assert (test.train.names, test.test.names) == (("day/1.png",), ("day/3.png",))
    assert (tune.train.names, tune.test.names) == (("day/1.png",), ("day/2.png",))


def test_a_column_says_what_classes_are_called(table):
    plain = "path,class,part\nday/1.png,n01,train\nday/2.png,n01,test\n"
    table.write_text(plain)
    before = suites.build({"name": "folder", "root": str(table), "shots": 1})
    table.write_text("path,class,part,name\nday/1.png,n01,train,tench\nday/2.png,n01,test,tench\n")
    after = suites.build({"name": "folder", "root": str(table), "shots": 1})
    assert before.tasks[0].class_names == ("n01",) and after.tasks[0].class_names == ("tench",)
    assert before.tasks[0].train == after.tasks[0].train and before.split_hash != after.split_hash


@pytest.mark.parametrize("path", ["pipe.png", "loop.png", "x" * 300, "."])
def test_what_is_no_file_is_not_there(table, path):
    os.mkfifo(table.parent / "pipe.png")
    (table.parent / "loop.png").symlink_to("loop.png")
    table.write_text(f"path,class\n{path},cat\n")
    with pytest.raises(UserError, match="not there or empty"):
        label_table.read(table)
