"""Two runs side by side: what differs, and intervals that agree with the paired bootstrap on the answers themselves."""

import json

import numpy as np
import pytest

from jax_promptmtl import command, compare, records, tree
from jax_promptmtl.metrics import paired
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
    first, second = map(compare.read, runs())
    assert compare.config_difference(first, second) == {"train/epochs": (6, 3)}
    rows = {row["task"]: row for row in compare.results(first, second)}
    assert rows["task0"]["a"] == 50 and rows["task0"]["b"] == 100 and rows["task0"]["difference"] == 50
    assert rows["average"]["difference"] == pytest.approx((50 - 100 / 3) / 2)
    values = [100.0 * (np.array(b) - np.array(a)) for a, b in zip(A, B, strict=True)]
    # drawings are numbered over all tasks; what counts is only which images share one
    expected = paired.bootstrap(values, [np.arange(4), np.arange(3)])
    assert rows["average"]["interval"] == expected[1:]
    assert rows["task1"]["interval"][0] <= -100 / 3 <= rows["task1"]["interval"][1]


@pytest.mark.parametrize("changes", [{"split_hash": "other"}, {"test_hash": "x"}], ids=str)
def test_other_test_images_give_no_interval(runs, changes, capsys):
    places = runs(**changes)
    alike = "test_hash" in changes  # only one of them tells: the split decides
    assert all((row["interval"] is not None) == alike for row in compare.results(*map(compare.read, places)))
    assert command.run(compare.start, places) == 0
    assert ("not tested on the same images" in capsys.readouterr().out) != alike


def test_work_directories_are_compared(home, capsys):
    place = str(home / "work")
    assert command.run(compare.start, [place, place]) == 0
    printed = capsys.readouterr().out
    assert "Their configs are equal." in printed and "[+0.0, +0.0]" in printed
    assert command.run(compare.start, [place, place, "--format=json"]) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    told = json.loads((home / "work" / "results.json").read_text())
    assert [row["a"] for row in rows[:-1]] == told["accuracy"]["MmAP"] and rows[-1]["task"] == "average"


def test_runs_from_before_answers_were_kept(home, tmp_path, capsys):
    content = json.loads((home / "work" / "results.json").read_text())
    for key in ("right", "drawing", "test_hash"):
        del content[key]
    (tmp_path / "results.json").write_text(json.dumps(content))
    (tmp_path / "config.json").write_text("{}")
    assert command.run(compare.start, [str(home / "work"), str(tmp_path)]) == 0
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
        assert command.run(compare.start, [first, str(tmp_path / place)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and words in line
