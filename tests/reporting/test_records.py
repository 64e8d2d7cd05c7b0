"""Records: whole or absent, and nothing foreign is taken for one."""

import gzip
import json
import subprocess

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.reporting import records
from tests.tiny import make_record


def put(folder, name, text):
    (folder / "records").mkdir(exist_ok=True)
    (folder / "records" / name).write_text(text)


def test_a_record_comes_back_as_it_was(tmp_path):
    path, record = tmp_path / "records" / "a.json", make_record()
    records.save(path, record)
    assert records.read(path) == record
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]  # no draft is left
    first, second = records.right(record)
    assert first.tolist() == [True, False] and second.all() and len(second) == 3


def test_a_broken_write_leaves_the_old_record(tmp_path, monkeypatch):
    path = tmp_path / "records" / "a.json"
    records.save(path, make_record())
    with pytest.raises(ValueError):
        records.save(path, make_record() | {"wall_seconds": float("nan")})
    assert records.read(path) == make_record()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError):
        records.save(path, make_record(seed=1))
    assert records.read_all(tmp_path) == ([make_record()], [])


FOREIGN = {
    "torn": (json.dumps(make_record())[:200], "cut short"),
    "empty": ("", "not JSON"),
    "list": ("[]", "no record"),
    "report": ('{"tasks": ["a"]}', "no record"),
    "newer": (json.dumps(make_record() | {"schema": 2}), "schema 2"),
    "typed": (json.dumps(make_record() | {"seed": "0"}), "'seed'"),
    "state": (json.dumps(make_record() | {"status": "running"}), "running"),
    "lacking": (json.dumps({k: v for k, v in make_record().items() if k != "right"}), "'right'"),
    "lengths": (json.dumps(make_record() | {"tasks": ["a"]}), "length"),
    "edited": (json.dumps(make_record() | {"correct": [2, 3]}), "contradict"),
    "bits": (json.dumps(make_record() | {"right": "?"}), "cannot be read"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files_are_ignored_and_named(kind, tmp_path):
    text, word = FOREIGN[kind]
    put(tmp_path, "good.json", json.dumps(make_record()))
    put(tmp_path, f"{kind}.json", text)
    found, (sentence,) = records.read_all(tmp_path)
    assert found == [make_record()]
    assert sentence.startswith("Ignored") and f"{kind}.json" in sentence and word in sentence
    assert records.read(tmp_path / "records" / f"{kind}.json") is None


@pytest.mark.parametrize("name", ["all.jsonl", "all.jsonl.gz"])
def test_a_packed_file_holds_the_same(name, tmp_path):
    made = [make_record(seed=seed) for seed in (0, 1)]
    records.pack(tmp_path / name, made)
    assert records.read_all(tmp_path / name) == (made, [])
    once = (tmp_path / name).read_bytes()
    records.pack(tmp_path / name, made)
    assert (tmp_path / name).read_bytes() == once


def test_a_packed_file_that_is_cut_short_is_one_sentence(tmp_path):
    whole = tmp_path / "all.jsonl.gz"
    records.pack(whole, [make_record()])
    whole.write_bytes(whole.read_bytes()[:50])
    with pytest.raises(UserError, match=r"all\.jsonl\.gz"):
        records.read_all(whole)
    plain = tmp_path / "all.jsonl"
    plain.write_text(json.dumps(make_record()) + "\n" + json.dumps(make_record(seed=1))[:99])
    found, (sentence,) = records.read_all(plain)
    assert len(found) == 1 and "line 2" in sentence


def test_nowhere_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        records.read_all(tmp_path / "nowhere")
    (tmp_path / "bad.gz").write_bytes(gzip.compress(b"{")[:9])
    with pytest.raises(UserError, match="pack it again"):
        records.read_all(tmp_path / "bad.gz")


def test_every_drawing_weighs_the_same():
    right, drawing = [np.array([1, 1, 1, 0, 1, 0], bool)], [np.array([7, 7, 7, 7, 9, 8])]
    assert records.per_drawing(right, drawing) == pytest.approx([100 * (3 / 4 + 1 + 0) / 3])


def test_the_git_state_is_that_of_the_code(tmp_path):
    assert records.git_state(tmp_path) is None
    commands = ["init", "add .", "-c user.name=a -c user.email=a@b -c commit.gpgsign=false commit -m one"]
    (tmp_path / "reporting").mkdir()
    (tmp_path / "reporting/records.py").write_text("")
    for command in commands:
        assert records.git_state(tmp_path) is None  # not under version control yet
        subprocess.run(["git", "-C", str(tmp_path), *command.split()], check=True, capture_output=True)
    state = records.git_state(tmp_path)
    assert state is not None and len(state["commit"]) == 40 and not state["dirty"]
    (tmp_path / "reporting/records.py").write_text("changed")
    assert records.git_state(tmp_path) == state | {"dirty": True}
