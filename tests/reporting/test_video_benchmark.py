"""The tables and the page of the video benchmark against numbers computed by hand."""

import csv
import re

import numpy as np
import pytest
from PIL import Image

from jax_promptmtl.experiments.video.rows import ROWS, legal
from jax_promptmtl.reporting import benchmark, records
from jax_promptmtl.reporting.collect import Column, collect_videos
from jax_promptmtl.reporting.differences import point_sheet, seed_findings, video_difference
from jax_promptmtl.reporting.rate_tables import rate_sheets
from jax_promptmtl.reporting.score_tables import video_score_sheet
from jax_promptmtl.reporting.video_benchmark import mvlpt_text
from tests.tiny import make_video_record

SCORES = {"frozen": 60.0, "hps": 50.0, "mvlpt": 61.0, "dlm": 64.0, "single_layer": 63.0, "mid_prompt": 62.0}
NOISE = {0: 0.0, 1: 1.0, 2: 2.0}
TASKS = ("recognition", "segmentation", "temporal_action")


@pytest.fixture(scope="module")
def found():
    made = []
    for task in TASKS:
        for method in set(SCORES) & set(legal(task)):
            for seed, noise in NOISE.items():
                noise = 0 if method == "frozen" else noise if method != "mid_prompt" else 3 * noise
                made.append(make_video_record(task, method, seed, SCORES[method] + noise))
    return made


@pytest.fixture(scope="module")
def table(found):
    made, remarks = collect_videos(found)
    assert not remarks
    return made


def texts(sheet):
    return {line[0].text: [cell.text for cell in line[1:]] for line in sheet.rows}


def test_a_line_per_row_and_kind_with_mean_and_std_of_the_seeds(table):
    sheet = video_score_sheet(table, table.rows, [Column(task) for task in TASKS], shares=True)
    assert sheet.header[1:4] == ("trained / all models", "paper", "recognition (top-1)")
    lines = texts(sheet)
    assert lines["DLM"] == ["20 %", "10.8 %", "65.0 ± 1.0", "65.0 ± 1.0", "65.0 ± 1.0"]
    assert lines["DLM, static prompts"] == ["20 %", "", "63.0 ± 1.0", "63.0 ± 1.0", "63.0 ± 1.0"]
    assert lines["frozen primary"][2:] == ["60.0"] * 3 and lines["hard parameter sharing"][3] == "–"  # noqa: RUF001
    best = {line[0].text: [cell.rank for cell in line[3:]] for line in sheet.rows}
    assert best["DLM"] == best["middle prompts, no auxiliary"] == [1, 1, 1] and best["frozen primary"] == [0, 0, 0]


def test_other_data_is_a_table_of_its_own(table):
    columns = [Column("recognition", "shifted"), Column("recognition", "panned"), Column("temporal_action", "shifted")]
    sheet = video_score_sheet(table, table.rows, columns)
    assert sheet.header[1:3] == ("recognition shifted (top-1)", "recognition panned (top-1)")
    assert texts(sheet)["DLM"] == ["55.0 ± 1.0", "45.0 ± 1.0", "–"]  # noqa: RUF001
    assert table.transfers == [
        Column(t, part) for t in ("recognition", "segmentation") for part in ("shifted", "panned")
    ]
    assert "DLM against frozen primary: above on recognition panned." in seed_findings(table.rows, columns[1:2])


def test_differences_are_paired_by_seed_and_undecided_where_seeds_disagree(table):
    rows = {row.method: row for row in table.rows if row.prompts == "dynamic"}
    found = video_difference(rows["dlm"], rows["frozen"], Column("segmentation"))
    assert (found.mean, found.seeds, found.sign) == (5.0, {0: 4.0, 1: 5.0, 2: 6.0}, 1)
    assert video_difference(rows["dlm"], rows["hps"], Column("segmentation")) is None
    lines = texts(point_sheet(rows["dlm"], [rows["mid_prompt"]], [Column("recognition")]))
    assert list(lines.values()) == [["+0.0 (+2.0, +0.0, -2.0)"]]
    said = seed_findings(table.rows, table.tasks)
    assert "DLM against frozen primary: above on recognition, temporal_action, segmentation." in said
    assert "DLM against hard parameter sharing: above on recognition, temporal_action." in said
    assert "DLM against middle prompts, no auxiliary: undecided on recognition, temporal_action, segmentation." in said


def test_what_does_not_fit_together_is_said(found):
    newer = make_video_record("recognition", "dlm", 0, 10.0, id="newer", written="2026-01-02T00:00:00Z")
    other = make_video_record("recognition", "frozen", 1, id="x", weights={"recognition": "1" * 64})
    made, remarks = collect_videos([*[r for r in found if r["seed"] == 0], newer, other])
    own = next(row for row in made.rows if row.method == "dlm")
    assert own.values(Column("recognition")) == [10.0]
    assert any("newer is used, and not dlm-recognition-0" in remark for remark in remarks)
    assert any("dlm lacks recognition seed 1" in remark for remark in remarks)
    assert any("different frozen models" in remark for remark in remarks)
    assert benchmark.console_tables([]) == "There is no finished run yet."


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"kind": "sound"}, "its kind is 'sound', not one of images, video"), ({"scores": 3}, "'scores' is missing")],
)
def test_a_record_of_another_form_is_not_trusted(changes, reason):
    assert records.describe_fault(make_video_record()) == ""
    assert reason in records.describe_fault(make_video_record(**changes))


def test_the_page_says_whose_prompts_had_another_width():
    made, _ = collect_videos([make_video_record(task, "mvlpt") for task in ("recognition", "spatial_action")])
    assert "Where widths differ (for spatial_action) they" in mvlpt_text(made)  # from temporal_action


def test_records_say_how_their_tables_are_laid_out():
    layout = {"tasks": ["tracking", "recognition"], "parts": ["test", "dark"], "metric_titles": {"hota": "HOTA"}}
    scores = {"dynamic": {"test": {"hota": 30.0}, "dark": {"hota": 20.0}}}
    carried = {"layout": layout, "metric": "hota", "scores": scores, "mapped_prompts": True}
    old = make_video_record("recognition", "mvlpt", id="old", written="2025-01-01T00:00:00Z")
    table, _ = collect_videos([old, make_video_record("tracking", "mvlpt", **carried)])
    assert table.tasks == [Column("tracking"), Column("recognition")]
    assert table.transfers[0] == Column("tracking", "dark")
    assert [table.heading(column) for column in table.tasks] == ["tracking (HOTA)", "recognition (top-1)"]
    assert "Where widths differ (for tracking) they" in mvlpt_text(table)


def test_a_search_for_rates_is_a_table_of_its_own(found):
    scores = {3e-4: 40.0, 1e-3: 55.5, 3e-3: 50.0}
    tried = [
        make_video_record("segmentation", "dlm", 0, score, id=f"dlm-{rate}", rate=rate)
        for rate, score in scores.items()
    ]
    assert collect_videos([*found, *tried])[1] == []
    ((task, sheet),) = rate_sheets([*found, *tried]).items()
    assert task == "segmentation"
    assert texts(sheet) == {"dlm": ["0.0003: 40.00", "0.001: 55.50", "0.003: 50.00", "0.001"]}
    assert "segmentation, learning rates" in benchmark.console_tables(tried)


def test_the_page_is_made_from_records_alone(found, tmp_path):
    failed = {key: make_video_record()[key] for key in records.KEYS | records.CELL["video"] | {"kind": str}}
    for record in [*found, failed | {"id": "bad", "status": "failed", "error": "diverged"}]:
        records.save(tmp_path / "records" / f"{record['id']}.json", record)
    assert benchmark.write_benchmark(tmp_path, tmp_path / "out") == []
    page = (tmp_path / "out" / "report.md").read_text()
    for words in ("Table 1", "Table 2", "Figure 3", "ddof = 1", "2.2 points", "- bad: diverged", "10.8 %"):
        assert words in page, words
    assert "MVLPT starts from" in page and "Where widths differ" not in page
    assert re.findall(r"<(figures/[^>]+)>", page) == ["figures/convergence.png"]
    with Image.open(tmp_path / "out" / "figures" / "convergence.png") as image:
        assert min(image.size) > 200
    with (tmp_path / "out" / "curves.csv").open() as file:
        curve = [row for row in csv.DictReader(file) if (row["task"], row["row"]) == ("segmentation", "dlm")]
    by_epoch = [np.mean([float(row["percent"]) for row in curve if row["epoch"] == epoch]) for epoch in "12"]
    assert by_epoch == [62.0, 65.0]
    with (tmp_path / "out" / "video_results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["title"] for line in lines} <= {
        title + end for title, _ in ROWS.values() for end in ("", ", static prompts")
    }
