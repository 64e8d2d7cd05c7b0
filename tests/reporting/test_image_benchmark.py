"""The tables of a benchmark on images against numbers computed by hand."""

import itertools

import numpy as np
import pytest

from jax_promptmtl.reporting import records
from jax_promptmtl.reporting.collect import collect_images
from jax_promptmtl.reporting.differences import compare_pairs
from jax_promptmtl.reporting.rate_tables import rate_sheets
from jax_promptmtl.reporting.score_tables import accuracy_sheet, group_sheet
from jax_promptmtl.tasks.metrics import paired
from tests.tiny import make_record

KEYS = records.KEYS | records.CELL["images"]

# Three seeds of two tasks of 2 and 4 images: accuracies (50, 25), (50, 50), (100, 75); averages 37.5, 50, 87.5.
SEEDS = [((1, 0), (1, 0, 0, 0)), ((0, 1), (1, 1, 0, 0)), ((1, 1), (1, 1, 1, 0))]


def made_table(*found):
    made, remarks = collect_images(found)
    assert len(made) == 1 and not remarks
    return made[0]


def test_mean_and_std_are_those_computed_by_hand():
    table = made_table(*(make_record(seed=seed, right=right) for seed, right in enumerate(SEEDS)))
    row = table.rows[0]
    assert [row.mean(column) for column in table.columns] == pytest.approx([200 / 3, 50, 175 / 3])
    # task 0: deviations -50/3, -50/3, 100/3; task 1: -25, 0, 25; average: -62.5/3, -25/3, 87.5/3; all over 2
    squares = [(50**2 + 50**2 + 100**2) / 9, 25**2 + 25**2, (62.5**2 + 25**2 + 87.5**2) / 9]
    assert [row.std(column) for column in table.columns] == pytest.approx(np.sqrt(np.array(squares) / 2))


def test_the_accuracy_table_marks_best_and_second():
    found = [make_record(m, seed=0, right=right) for m, right in zip(("coop", "vpt", "mmap"), SEEDS, strict=True)]
    sheet = accuracy_sheet(made_table(*found))
    cells = {line[0].text: [(cell.text, cell.rank) for cell in line[3:]] for line in sheet.rows}
    assert sheet.header == ("method", "trained parameters", "seeds", "task0", "task1", "average")
    assert cells["coop"] == [("50.0", 2), ("25.0", 0), ("37.5", 0)]
    assert cells["vpt"] == [("50.0", 2), ("50.0", 2), ("50.0", 2)]
    assert cells["mmap"] == [("100.0", 1), ("75.0", 1), ("87.5", 1)]


def test_the_papers_numbers_stand_beside_ours_only_on_its_suites():
    tasks = {"right": [(1, 0)] * 4, "tasks": ["Art", "Clipart", "Product", "Real World"], "shots": 6}
    theirs = accuracy_sheet(made_table(make_record(**tasks, suite_name="office_home")))
    assert [cell.text for cell in theirs.rows[0][3:]] == [
        "50.0 (85.7 ± 0.5)", "50.0 (76.3 ± 0.6)", "50.0 (92.9 ± 0.5)", "50.0 (90.9 ± 0.9)", "50.0 (86.5 ± 0.6)",
    ]  # fmt: skip
    for other in ({"suite_name": "icons"}, {"suite_name": "office_home", "shots": 3}):
        sheet = accuracy_sheet(made_table(make_record(**(tasks | other))))
        assert [cell.text for cell in sheet.rows[0][3:]] == ["50.0"] * 5


def test_table_3_has_the_papers_column_only_on_its_suite():
    found = [make_record(m, right=r) for m, r in zip(("mmap_task", "mmap_one", "mmap"), SEEDS, strict=True)]
    sheet = group_sheet(made_table(*found))
    assert [[cell.text for cell in line] for line in sheet.rows] == [
        ["task-specific", "100", "37.50"],
        ["task-specific + gradient groups", "100", "87.50"],
        ["task-specific + all in one group", "100", "50.00"],
    ]
    found = [record | {"suite_name": "office_home", "shots": 12} for record in found]
    assert [line[-1].text for line in group_sheet(made_table(*found)).rows] == ["86.97", "87.77", "87.36"]
    assert group_sheet(made_table(found[0])) is None


def test_what_does_not_fit_together_is_said():
    twice = [make_record(), make_record() | {"id": "other", "written": "2026-01-02T00:00:00Z", "trainable": 7}]
    made, (sentence,) = collect_images(twice)
    assert made[0].rows[0].runs[0]["trainable"] == 7 and "other is used, and not mmap-0" in sentence
    _, (sentence,) = collect_images([make_record(seed=0), make_record(seed=1), make_record("coop", seed=1)])
    assert "coop lacks seed 0" in sentence
    _, (sentence,) = collect_images([make_record(), make_record("coop", split_hash="another")])
    assert "different splits" in sentence
    other = make_record("coop", backbone={"name": "clip", "sha256": "1" * 64})
    assert len(collect_images([make_record(), other])[0]) == 2


def test_failed_runs_and_searches_are_in_no_average():
    failed = {key: make_record()[key] for key in KEYS} | {
        "status": "failed",
        "error": "no",
        "seed": 1,
    }
    table = made_table(make_record(), failed, make_record(seed=2, rate=0.1))
    assert table.rows[0].seeds == [0]


def test_the_difference_of_two_methods_is_paired():
    one = [make_record("mmap", seed=s, right=((1, 1), (1, 1, 0, 0)), split_hash=f"s{s}") for s in (0, 1)]
    two = [make_record("coop", seed=s, right=((1, s), (1, 0, 0, s)), split_hash=f"s{s}") for s in (0, 1, 2)]
    made, _ = collect_images(one + two)
    (found,) = compare_pairs(made[0], [("mmap", "coop"), ("mmap", "vpt"), ("mmap", "mmap")])
    difference = found.difference
    # seed 0: tasks +50 and +25 points; seed 1: 0 and 0; seed 2 has no partner
    assert (found.method.method, found.against.method, difference.seeds) == ("mmap", "coop", {0: 37.5, 1: 0.0})
    low, high = difference.interval
    assert difference.mean == pytest.approx(18.75) and low <= difference.mean <= high and difference.sign == 0


def test_the_interval_is_that_of_all_resamples():
    # three drawings of 1, 2 and 3 images: all 27 equally likely resamples can be listed
    parts = [np.array([1.0]), np.array([0.0, 1.0]), np.array([-1.0, 0.0, 0.0])]
    every = [np.concatenate(chosen).mean() for chosen in itertools.product(parts, repeat=3)]
    cluster = np.array([4, 9, 9, 2, 2, 2])
    found = paired.bootstrap([np.concatenate(parts)], [cluster], repeats=20_000, level=0.9)
    assert found[0] == pytest.approx(1 / 6)
    assert found[1:] == pytest.approx(tuple(np.quantile(every, [0.05, 0.95], method="inverted_cdf")))


def test_pictures_of_one_drawing_are_no_independent_images():
    values = np.repeat(np.random.default_rng(0).integers(-1, 2, 40).astype(float), 10)
    alone = paired.bootstrap([values], [np.arange(400)])
    together = paired.bootstrap([values], [np.repeat(np.arange(40), 10)])
    assert together[2] - together[1] > 2 * (alone[2] - alone[1])


def test_the_search_for_rates_names_the_best_and_the_edge():
    found = [make_record("coop", right=right, rate=rate) for right, rate in zip(SEEDS, (1e-3, 1e-2, 1e-1), strict=True)]
    found += [make_record("vpt", right=right, rate=rate) for right, rate in zip(SEEDS[1:], (1, 2), strict=True)]
    keys = {key: found[0][key] for key in KEYS}
    found.append(keys | {"method": "vpt", "rate": 3, "status": "failed", "error": "diverged"})
    sheet = rate_sheets(found)["tiny"]
    lines = [[cell.text for cell in line] for line in sheet.rows]
    assert lines[0] == ["coop", "0.001: 37.50", "0.01: 50.00", "0.1: 87.50", "0.1 (at the edge)"]
    assert lines[1] == ["vpt", "1: 50.00", "2: 87.50", "3: failed", "2"]
