"""The tables and the page of the video benchmark against numbers computed by hand."""

import csv
import re

import numpy as np
import pytest
from PIL import Image

from jax_promptmtl.experiments.video.rows import ROWS, legal
from jax_promptmtl.reporting import records, report, video_report, video_tables
from jax_promptmtl.reporting.video_tables import Column
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
def rows(found):
    made, remarks = video_tables.collect(found)
    assert not remarks
    return made


def texts(sheet):
    return {line[0].text: [cell.text for cell in line[1:]] for line in sheet.rows}


def test_a_line_per_row_and_kind_with_mean_and_std_of_the_seeds(rows):
    sheet = video_tables.score_sheet(rows, [Column(task) for task in TASKS], shares=True)
    assert sheet.header[1:4] == ("trained / all models", "paper", "recognition (top-1)")
    lines = texts(sheet)
    assert lines["DLM"] == ["20 %", "10.8 %", "65.0 ± 1.0", "65.0 ± 1.0", "65.0 ± 1.0"]
    assert lines["DLM, static prompts"] == ["20 %", "", "63.0 ± 1.0", "63.0 ± 1.0", "63.0 ± 1.0"]
    assert lines["frozen primary"][2:] == ["60.0"] * 3 and lines["hard parameter sharing"][3] == "–"  # noqa: RUF001
    best = {line[0].text: [cell.rank for cell in line[3:]] for line in sheet.rows}
    assert best["DLM"] == best["middle prompts, no auxiliary"] == [1, 1, 1] and best["frozen primary"] == [0, 0, 0]


def test_other_data_is_a_table_of_its_own(rows):
    columns = [Column("recognition", "shifted"), Column("recognition", "panned"), Column("temporal_action", "shifted")]
    sheet = video_tables.score_sheet(rows, columns)
    assert sheet.header[1:3] == ("recognition shifted (top-1)", "recognition panned (top-1)")
    assert texts(sheet)["DLM"] == ["55.0 ± 1.0", "45.0 ± 1.0", "–"]  # noqa: RUF001
    transfers = video_tables.transfers_of(rows)
    assert transfers == [Column(t, part) for t in ("recognition", "segmentation") for part in ("shifted", "panned")]
    assert "DLM against frozen primary: above on recognition panned." in video_tables.findings(rows, columns[1:2])


def test_differences_are_paired_by_seed_and_undecided_where_seeds_disagree(rows):
    own = next(row for row in rows if row.method == "dlm" and row.kind == "dynamic")
    other = {row.method: row for row in rows if row.kind == "dynamic"}
    assert video_tables.difference(own, other["frozen"], Column("segmentation")) == [4.0, 5.0, 6.0]
    assert video_tables.difference(own, other["hps"], Column("segmentation")) == []
    lines = texts(video_tables.difference_sheet(own, [other["mid_prompt"]], [Column("recognition")]))
    assert list(lines.values()) == [["+0.0 (+2.0, +0.0, -2.0)"]]
    said = video_tables.findings(rows, video_tables.tasks_of(rows))
    assert "DLM against frozen primary: above on recognition, temporal_action, segmentation." in said
    assert "DLM against hard parameter sharing: above on recognition, temporal_action." in said
    assert "DLM against middle prompts, no auxiliary: undecided on recognition, temporal_action, segmentation." in said


def test_what_does_not_fit_together_is_said(found):
    newer = make_video_record("recognition", "dlm", 0, 10.0, id="newer", written="2026-01-02T00:00:00Z")
    other = make_video_record("recognition", "frozen", 1, id="x", weights={"recognition": "1" * 64})
    made, remarks = video_tables.collect([*[r for r in found if r["seed"] == 0], newer, other])
    own = next(row for row in made if row.method == "dlm")
    assert own.values(Column("recognition")) == {0: 10.0}
    assert any("newer is used, and not dlm-recognition-0" in remark for remark in remarks)
    assert any("dlm lacks recognition seed 1" in remark for remark in remarks)
    assert any("different frozen models" in remark for remark in remarks)
    assert video_tables.console([]) == "There is no finished run yet."


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"kind": "sound"}, "its kind is 'sound', not one of images, video"), ({"scores": 3}, "'scores' is missing")],
)
def test_a_record_of_another_form_is_not_trusted(changes, reason):
    assert records.complain(make_video_record()) == ""
    assert reason in records.complain(make_video_record(**changes))


def test_the_page_says_whose_prompts_had_another_width():
    made, _ = video_tables.collect([make_video_record(task, "mvlpt") for task in ("recognition", "spatial_action")])
    assert "Where widths differ (for spatial_action) they" in video_report.mvlpt_text(made)  # from temporal_action


def test_a_search_for_rates_is_a_table_of_its_own(found):
    scores = {3e-4: 40.0, 1e-3: 55.5, 3e-3: 50.0}
    tried = [
        make_video_record("segmentation", "dlm", 0, score, id=f"dlm-{rate}", rate=rate)
        for rate, score in scores.items()
    ]
    assert video_tables.collect([*found, *tried])[1] == []
    ((task, sheet),) = video_tables.sweep_sheets([*found, *tried]).items()
    assert task == "segmentation"
    assert texts(sheet) == {"dlm": ["0.0003: 40.00", "0.001: 55.50", "0.003: 50.00", "0.001"]}
    assert "segmentation, learning rates" in video_tables.console(tried)


def test_the_page_is_made_from_records_alone(found, tmp_path):
    failed = {key: make_video_record()[key] for key in records.KEYS | records.CELL["video"] | {"kind": str}}
    for record in [*found, failed | {"id": "bad", "status": "failed", "error": "diverged"}]:
        records.save(tmp_path / "records" / f"{record['id']}.json", record)
    assert report.write(tmp_path, tmp_path / "out") == []
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
