import time

import pytest

from jax_promptmtl.engine.meter import Clock, Speed, summarize


def entry(loss, correct, count):
    return {"loss": loss, "grad_norm": 1.0, "sums": {"loss": [2.0, 3.0], "correct": correct, "count": count}}


def test_averages_divide_sums_and_do_not_average_averages():
    values = summarize([entry(1.0, [1.0, 1.0], [1.0, 4.0]), entry(2.0, [0.0, 2.0], [3.0, 2.0])], ("a", "b"))
    assert values["accuracy/a"] == 1 / 4  # and not (1/1 + 0/3) / 2
    assert values["accuracy/b"] == 3 / 6
    assert values["accuracy"] == 4 / 10
    assert values["loss/a"] == 4 / 4
    assert values["loss"] == 1.5


def test_a_task_that_did_not_occur_has_no_average():
    values = summarize([entry(1.0, [1.0, 0.0], [2.0, 0.0])], ("a", "b"))
    assert "accuracy/b" not in values
    assert values["accuracy"] == 0.5


def test_speed_counts_only_while_it_runs():
    speed = Speed()
    assert speed.lap() == 0
    speed.run()
    speed.images += 10
    time.sleep(0.05)
    speed.pause()
    time.sleep(0.2)
    assert speed.lap() == pytest.approx(10 / speed.seconds)
    assert 0.05 <= speed.seconds < 0.15
    assert speed.lap() == 0


def test_the_clock_knows_where_the_time_went():
    clock = Clock()
    with clock.spending("data"):
        time.sleep(0.05)
    with clock.spending("evaluation"):
        time.sleep(0.02)
    time.sleep(0.03)
    spent = clock.spent()
    assert spent["data"] >= 0.05 and spent["evaluation"] >= 0.02 and spent["steps"] >= 0.03
    assert spent["compilation"] == spent["checkpoints"] == 0
