"""Two runs side by side: what differs, and intervals that agree with the paired bootstrap on the answers themselves."""

import gzip
import json
import pathlib

import numpy as np
import pytest

from jax_promptmtl import compare as door
from jax_promptmtl.core import command, tree
from jax_promptmtl.reporting import compare, records
from jax_promptmtl.tasks.metrics import paired
from tests.tiny import make_record

A = ((1, 0, 0, 1), (1, 1, 0))
B = ((1, 1, 1, 1), (0, 1, 0))


@pytest.fixture
def runs(tmp_path):
    """Return a function that writes two records and returns their paths."""

    def write(**changes):
        config = {"seed": 0, "train": {"epochs": 6}, "tune": []}
        first = make_record("mmap", right=A, config=config)
        other = make_record("coop", right=B, config=config | {"train": {"epochs": 3}}, **changes)
        for name, record in (("a", first), ("b", other)):
            records.save(tmp_path / f"{name}.json", record)
        return [str(tmp_path / "a.json"), str(tmp_path / "b.json")]

    return write


def test_differences_are_paired(runs):
    first, second = map(compare.read_run, runs())
    assert compare.config_changes(first, second) == {"train/epochs": (6, 3)}
    rows = {row.task: row for row in compare.score_differences(first, second)}
    assert (rows["task0"].a, rows["task0"].b, rows["task0"].points) == (50, 100, 50)
    assert rows["average"].points == pytest.approx((50 - 100 / 3) / 2)
    values = [100.0 * (np.array(b) - np.array(a)) for a, b in zip(A, B, strict=True)]
    # drawings are numbered over all tasks; what counts is only which images share one
    expected = paired.bootstrap(values, [np.arange(4), np.arange(3)])
    assert rows["average"].interval == expected[1:]
    assert rows["task1"].interval[0] <= -100 / 3 <= rows["task1"].interval[1]


@pytest.mark.parametrize("changes", [{"split_hash": "other"}, {"test_hash": "x"}], ids=str)
def test_other_test_images_give_no_interval(runs, changes, capsys):
    places = runs(**changes)
    alike = "test_hash" in changes  # only one of them tells: the split decides
    assert all((row.interval is not None) == alike for row in compare.score_differences(*map(compare.read_run, places)))
    assert command.run(door.start, places) == 0
    assert ("not tested on the same images" in capsys.readouterr().out) != alike


def test_work_directories_are_compared(home, capsys):
    place = str(home / "work")
    assert command.run(door.start, [place, place]) == 0
    printed = capsys.readouterr().out
    assert "Their configs are equal." in printed and "[+0.0, +0.0]" in printed
    assert command.run(door.start, [place, place, "--format=json"]) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    told = json.loads((home / "work" / "results.json").read_text())
    assert [row["a"] for row in rows[:-1]] == told["accuracy"]["MmAP"] and rows[-1]["task"] == "average"


def test_runs_from_before_answers_were_kept(home, tmp_path, capsys):
    content = json.loads((home / "work" / "results.json").read_text())
    for key in ("right", "drawing", "test_hash"):
        del content[key]
    (tmp_path / "results.json").write_text(json.dumps(content))
    (tmp_path / "config.json").write_text("{}")
    assert command.run(door.start, [str(home / "work"), str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "stage=evaluate" in printed and "(unset)" in printed
    config = tree.flatten(json.loads((home / "work" / "config.json").read_text()))
    assert all(path in printed for path in config)


def test_mistakes_are_one_sentence(runs, tmp_path, capsys):
    first, _ = runs()
    (tmp_path / "bad.json").write_text('{"schema": 99}')
    other = make_record(right=((1,),), tasks=["elsewhere"])
    records.save(tmp_path / "else.json", other)
    for place, words in (("nowhere", "results.json"), ("bad.json", "schema 99"), ("else.json", "no task in common")):
        assert command.run(door.start, [first, str(tmp_path / place)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and words in line


def video_run(folder, dlm, **config):
    """Write what a video job leaves behind, with two rows."""
    part = {"frozen": 80.0, "dlm": dlm}
    rows = {
        name: {"title": name, "metric": "top1", "scores": {"dynamic": {"test": {"top1": value}}}}
        for name, value in part.items()
    }
    rows["dlm"]["scores"]["static"] = {"shifted": {"top1": 50.0}}
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(rows))
    (folder / "config.json").write_text(json.dumps({"job": "video", "task": "recognition", **config}))
    return str(folder)


def test_video_runs_are_compared_row_by_row(tmp_path, capsys):
    places = [video_run(tmp_path / "a", 90.0, seed=0), video_run(tmp_path / "b", 92.5, seed=1)]
    first, second = map(compare.read_run, places)
    assert compare.config_changes(first, second) == {"seed": (0, 1)}
    rows = {row.task: row.points for row in compare.score_differences(first, second)}
    assert rows == {"frozen: test, top1": 0, "dlm: test, top1": 2.5, "dlm: shifted, static, top1": 0}
    assert command.run(door.start, places) == 0
    assert "not compared one by one" in capsys.readouterr().out


def test_records_of_videos_are_compared_by_what_they_measured(tmp_path):
    packed = pathlib.Path(__file__).parents[2] / "docs" / "benchmark_video" / "records.jsonl.gz"
    with gzip.open(packed) as lines:
        every = [json.loads(line) for line in lines]
    some = (record for record in every if (record["task"], record["seed"]) == ("segmentation", 0))
    found = {record["method"]: record for record in some if record["method"] in ("vpt", "dlm")}
    for name, record in found.items():
        records.save(tmp_path / f"{name}.json", record)
    first, second = (compare.read_run(str(tmp_path / f"{name}.json")) for name in ("vpt", "dlm"))
    rows = {row.task: row for row in compare.score_differences(first, second)}
    assert rows["test, f1@50"].b == found["dlm"]["scores"]["dynamic"]["test"]["f1@50"]
    assert rows.keys() == {"test, f1@50", "shifted, f1@50"} and second.title == "DLM for segmentation"


def test_fine_tuned_models_are_compared_by_their_metrics(tmp_path):
    for name, value in (("a", 40.0), ("b", 41.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps({"top1": value, "top5": 70.0}))
        (tmp_path / name / "config.json").write_text(json.dumps({"job": "finetune", "data": {"name": "ucf101"}}))
    first, second = (compare.read_run(str(tmp_path / name)) for name in ("a", "b"))
    assert {row.task: row.points for row in compare.score_differences(first, second)} == {"top1": 1, "top5": 0}
    assert first.title == "ucf101, fine-tuned"
