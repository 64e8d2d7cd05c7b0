"""The command that classifies images: inputs, formats, and what it says to mistakes."""

import csv
import io
import json
import os
import shutil

import pytest
from PIL import Image

import jax_promptmtl
from jax_promptmtl import predict
from jax_promptmtl.core import command
from tests.tiny import CLASSES


@pytest.fixture
def ask(home, capsys, monkeypatch):
    """Return a function that runs the command and returns its output."""

    def run(*arguments, stdin="", code=0):
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        assert command.run(predict.start, [str(home / "work"), *map(str, arguments)]) == code
        printed = capsys.readouterr()
        return printed.err if code else printed.out

    return run


def test_json_has_what_the_python_api_says(home, ask):
    folder = home / "images" / "oil"
    found = json.loads(ask("--task=oil", "--format=json", "--top=2", folder / "cat" / "0.png", folder / "dog"))
    paths = [folder / "cat" / "0.png", *sorted((folder / "dog").iterdir())]
    assert [row["image"] for row in found] == list(map(str, paths))
    answer = jax_promptmtl.load(home / "work").predict(paths, "oil")
    for row, best in zip(found, answer.top(2), strict=True):
        assert row["class"] == best[0][0] and row["task"] == "oil" and list(row["top"]) == [name for name, _ in best]
        assert row["probability"] == pytest.approx(best[0][1], abs=1e-5)


def test_csv_and_paths_on_standard_input(home, ask):
    listed = "".join(f"{path}\n" for path in sorted((home / "images" / "ink" / "cat").iterdir()))
    rows = list(csv.DictReader(io.StringIO(ask("--task", "ink", "--format=csv", "-", stdin=listed))))
    assert "".join(row["image"] + "\n" for row in rows) == listed
    for row in rows:
        chances = [float(row[key]) for key in ("probability", "probability_2", "probability_3")]
        assert chances == sorted(chances, reverse=True) and sum(chances) == pytest.approx(1, abs=1e-5)
        assert {row["class"], row["class_2"], row["class_3"]} == {name.replace("_", " ") for name in CLASSES}


def test_the_table_is_plain_text_in_columns(home, ask):
    lines = ask("--task=ink", home / "images" / "ink").splitlines()
    assert len(lines) == 4 * len(CLASSES) and "\x1b" not in "".join(lines)
    assert len({line.index(" % ") for line in lines}) == 1


def test_new_classes(home, ask):
    (row,) = json.loads(ask("--task=ink", "--classes=cat, bed", "--format=json", home / "images" / "ink/cat/0.png"))
    assert set(row["top"]) == {"cat", "bed"}


def test_an_image_in_the_middle_that_is_broken_leaves_a_whole_list(home, ask, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jax_promptmtl.inference.image_predictor.BATCH", 1)
    shutil.copy(home / "images" / "ink" / "cat" / "0.png", tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    arguments = [str(home / "work"), "--task=ink", "--format=json", str(tmp_path)]
    assert command.run(predict.start, arguments) == 2
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)) == 1
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ") and "b.png" in line


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["a.png"], ["ink, oil, pen, wax", "--task"]),
        (["--task=oli", "a.png"], ["'oil'"]),
        (["--task=oil"], ["No images"]),
        (["--task=oil", "{empty}"], ["no images in the folder"]),
        (["--task=oil", "nowhere.png"], ["nowhere.png"]),
        (["--task=oil", "--format=xml", "a.png"], ["csv, json, table"]),
        (["--task=oil", "--top=0", "a.png"], ["--top"]),
        (["--tusk=oil", "a.png"], ["--tusk", "--help"]),
        (["--task=oil", "--backbone={empty}", "a.png"], ["No weights", "--backbone"]),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(arguments, words, ask, tmp_path):
    (line,) = ask(*(argument.format(empty=tmp_path) for argument in arguments), code=2).splitlines()
    assert line.startswith("error: ") and all(word in line for word in words)


def test_nothing_in_the_work_directory_changes(home, ask):
    def state():
        return sorted((path, os.stat(path).st_mtime_ns) for path in (home / "work").rglob("*"))

    before = state()
    ask("--task=ink", home / "images" / "ink" / "cat" / "0.png")
    assert state() == before


def test_bad_files_cost_a_line_each_and_the_others_are_classified(home, tmp_path, capsys):
    for number in range(5):
        shutil.copy(home / "images" / "ink" / "cat" / "0.png", tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    os.remove(tmp_path / "3.png")
    os.mkfifo(tmp_path / "3.png")
    assert command.run(predict.start, [str(home / "work"), "--task=ink", "--format=csv", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert [line.split(",")[0][-5:] for line in printed.out.splitlines()[1:]] == ["0.png", "2.png", "4.png"]
    assert [name in line for name, line in zip(("1.png", "3.png"), printed.err.splitlines(), strict=True)] == [True] * 2


def test_names_of_classes_with_commas_and_in_a_file(home, ask, tmp_path):
    (tmp_path / "names.txt").write_text("cat\n\nfox, red\n")
    for names in ('cat, "fox, red"', str(tmp_path / "names.txt")):
        rows = ask("--task=ink", f"--classes={names}", "--format=json", home / "images" / "ink/cat/0.png")
        assert set(json.loads(rows)[0]["top"]) == {"cat", "fox, red"}


def test_images_of_several_tasks_in_one_call(home, ask, tmp_path):
    images = home / "images"
    expected = {
        task: json.loads(ask(f"--task={task}", "--format=json", images / task / "cat/0.png"))[0]
        for task in ("ink", "oil")
    }
    found = json.loads(ask("--task=path", "--format=json", images / "ink/cat/0.png", images / "oil/cat/0.png"))
    table = tmp_path / "wanted.csv"
    table.write_text(f"path,task\n{images}/ink/cat/0.png,ink\n{images}/oil/cat/0.png,oil\n")
    told = json.loads(ask("--format=json", table))
    for rows in (found, told):
        assert [row["task"] for row in rows] == ["ink", "oil"]
        for row in rows:
            assert row["class"] == expected[row["task"]]["class"]
            assert abs(row["probability"] - expected[row["task"]]["probability"]) < 1e-4
    assert "No folder of" in ask("--task=path", "a.png", code=2)


def test_a_large_picture_has_an_option(home, ask, tmp_path):
    Image.new("L", (2000, 1500)).save(tmp_path / "large.png")
    assert "too large" in ask("--task=ink", "--megapixels=2.9", tmp_path / "large.png", code=2)
    assert len(json.loads(ask("--task=ink", "--megapixels=3", "--format=json", tmp_path / "large.png"))) == 1
