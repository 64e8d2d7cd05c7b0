import io
import json
import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jax_promptmtl.engine.writer import Writer, progress, read


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(workdir, stage, steps, *, step=0, evaluated=False):
    writer = Writer(workdir, stage, step=step, evaluated=evaluated)
    for number in steps:
        writer.observed(number, {"gram": np.float32([[number, 0.1]])})
        writer.scalars(number, {"loss": number / 2}, images_per_second=100.0 * number)
        writer.evaluation(number, {"accuracy": number / 10})
    writer.close()
    return writer


def test_a_resumed_run_leaves_the_same_bytes(tmp_path):
    write(tmp_path / "whole", "main", range(1, 7))
    write(tmp_path / "resumed", "main", range(1, 6))
    write(tmp_path / "resumed", "main", range(4, 7), step=3, evaluated=True)
    for name in ("metrics.jsonl", "observed/main.jsonl"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_an_evaluation_that_the_checkpoint_does_not_know_is_taken_out(tmp_path):
    write(tmp_path, "main", [1, 2])
    write(tmp_path, "main", [], step=2, evaluated=False)
    kept = lines(tmp_path / "metrics.jsonl")
    assert [(record["step"], "evaluation" in record) for record in kept] == [(1, False), (1, True), (2, False)]


def test_other_stages_stay(tmp_path):
    write(tmp_path, "first", [1, 2])
    write(tmp_path, "second", [1])
    write(tmp_path, "second", [], step=0)
    assert [record["stage"] for record in lines(tmp_path / "metrics.jsonl")] == ["first"] * 4


def test_observations_come_back_exactly(tmp_path):
    write(tmp_path, "main", [1, 2, 3])
    writer = Writer(tmp_path, "main", step=2, evaluated=True)
    writer.close()
    assert [record["step"] for record in writer.observations] == [1, 2]
    np.testing.assert_array_equal(writer.observations[1]["observed"]["gram"], np.float64(np.float32([[2, 0.1]])))


def test_a_line_cut_short_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"stage": "main", "step": 1}\n{"stage": "ma')
    assert list(read(path)) == [{"stage": "main", "step": 1}]
    write(tmp_path, "main", [2], step=1)
    assert [record["step"] for record in lines(path)] == [1, 2, 2]


def test_tensorboard_gets_the_scalars_and_the_clock(tmp_path):
    write(tmp_path, "main", [3])
    read = EventAccumulator(str(tmp_path / "tensorboard" / "main")).Reload()
    found = {(tag, event.step): event.value for tag in read.Tags()["scalars"] for event in read.Scalars(tag)}
    expected = {("loss", 3): 1.5, ("images_per_second", 3): 300.0, ("evaluation/accuracy", 3): np.float32(0.3)}
    assert found == expected


class Terminal(io.StringIO):
    """Text that takes itself for a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize("stream, shown", [(Terminal(), True), (io.StringIO(), False)], ids=["terminal", "pipe"])
def test_the_progress_bar_is_for_terminals(stream, shown, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream)
    with progress("prompts", step=3, total=10) as bar:
        bar.set_postfix(loss=0.5)
        bar.update(7)
    assert bool(stream.getvalue()) == shown
    assert all(words in stream.getvalue() for words in ("prompts: 100%", "10/10", "loss=0.5") if shown)
