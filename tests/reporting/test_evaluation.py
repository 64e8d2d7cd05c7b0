"""The evaluation of an image run: numbers against arithmetic by hand, and the same cells in every form of the table."""

import json
import re

import pytest

from jax_promptmtl.reporting import typeset
from jax_promptmtl.reporting.evaluation import console_evaluation, evaluation_record, evaluation_sheet

NAMES = ["line", "duotone", "filled"]


@pytest.fixture
def record():
    correct = {"zero-shot": [100, 30, 0], "MmAP": [120, 45, 3]}
    return evaluation_record(NAMES, [200, 60, 6], correct, trainable=129_744, total=149_750_481)


def test_results_against_arithmetic_by_hand(record):
    assert record["accuracy"] == {"zero-shot": [50.0, 50.0, 0.0], "MmAP": [60.0, 75.0, 50.0]}
    assert record["average"] == pytest.approx({"zero-shot": 100 / 3, "MmAP": 185 / 3})  # over tasks, not over images
    assert record["gain"] == [10.0, 25.0, 50.0] and record["average_gain"] == pytest.approx(85 / 3)
    assert record["share"] == pytest.approx(0.0866, abs=1e-4)
    assert json.loads(json.dumps(record)) == record


def test_table_says_the_numbers_and_is_aligned(record):
    lines = console_evaluation(record).splitlines()
    assert lines[0].split() == ["task", "images", "zero-shot", "MmAP", "gain"]
    assert lines[2].split() == ["line", "200", "50.0", "60.0", "+10.0"]
    assert lines[4].split() == ["filled", "6", "0.0", "50.0", "+50.0"]
    assert lines[6].split() == ["average", "266", "33.3", "61.7", "+28.3"]
    assert len({len(line) for line in lines[:-1]}) == 1
    assert lines[-1] == "trainable parameters: 129,744 of 149,750,481 (0.087 %)"


def test_losses_carry_their_sign_and_one_model_has_no_gain():
    worse = evaluation_record(["a"], [10], {"x": [5], "y": [4]}, trainable=1, total=2)
    assert console_evaluation(worse).splitlines()[2].split() == ["a", "10", "50.0", "40.0", "-10.0"]
    alone = evaluation_record(["a"], [10], {"x": [5]}, trainable=1, total=2)
    assert "gain" not in console_evaluation(alone) + typeset.markdown(evaluation_sheet(alone))


def test_markdown_has_the_cells_of_the_table(record):
    def words(text):
        return re.sub(r"[|*─]", " ", text).split()

    rows = typeset.markdown(evaluation_sheet(record)).splitlines()
    plain = console_evaluation(record).splitlines()
    assert [words(row) for row in [rows[0], *rows[2:6]]] == [words(row) for row in [plain[0], *plain[2:5], plain[6]]]
    assert len({row.count("|") for row in rows[:6]}) == 1
