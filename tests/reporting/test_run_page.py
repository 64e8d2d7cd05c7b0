"""The page of a run: everything is there, links resolve, mistakes and examples are those that were given."""

import json
import re

import numpy as np
import pytest

from jax_promptmtl.core.versions import versions
from jax_promptmtl.reporting import figures, image_run, run_page, typeset
from jax_promptmtl.reporting.evaluation import evaluation_record, evaluation_sheet, write_results
from jax_promptmtl.reporting.page import Page
from jax_promptmtl.reporting.run_page import Confusion, Provenance

NAMES = ["line", "duotone", "filled"]
GROUPS = {
    "tasks": NAMES,
    "groups": [["line", "duotone"], ["filled"]],
    "similarity": "dot",
    "rule": {"objective": "mean"},
    "solver": "subset DP",
    "snapshots": 12,
    "score": 0.5,
    "runner_up": [["line"], ["duotone", "filled"]],
    "margin": 0.125,
    "stability": 0.875,
    "matrices": {"conflict_rate": [[0, 0.1, 0.2], [0.1, 0, 0.75], [0.2, 0.75, 0]]},
}


@pytest.fixture
def record():
    correct = {"zero-shot": [100, 30, 0], "MmAP": [120, 45, 3]}
    return evaluation_record(NAMES, [200, 60, 6], correct, trainable=129_744, total=149_750_481)


def write(workdir, record, groups=GROUPS):
    files = {"results.json": "numbers", "grouping.json": "groups", "metrics.jsonl": "what is not there"}
    command = "python -m jax_promptmtl.main --config=configs/mmap.py"
    made = Provenance(command, {"seed": 1, "tune": "a|b"}, {"pretest": 2.0, "train": 70.5}, files)
    write_results(workdir, record, command=made.command, timings=made.timings)
    page = Page(workdir)
    page.say("# MmAP on icons")
    image_run.add_evaluation(page, record)
    image_run.add_grouping(page, groups)
    figures.heat_map(page.picture("heat map.png", "Task similarity"), NAMES, {"dot": np.eye(3)})
    said = run_page.finish_page(page, made)
    return said, (workdir / "report.md").read_text()


def test_the_page_holds_everything_and_its_links_resolve(tmp_path, record):
    (tmp_path / "grouping.json").write_text("{}")
    said, text = write(tmp_path, record)
    assert said == f"{tmp_path / 'report.md'} has the pictures, report.html all in one file; 1 min 12 s in all."
    assert typeset.markdown(evaluation_sheet(record)) in text
    assert "Trainable parameters: 129,744 of 149,750,481 (0.087 %)" in text
    assert "```\npython -m jax_promptmtl.main --config=configs/mmap.py\n```" in text
    assert "**line + duotone; filled**" in text and "behind by 0.125" in text
    assert "88 %" in text and "duotone and filled, in 75 %" in text
    assert "| train | 1 min 10 s |" in text and "| all | 1 min 12 s |" in text
    assert "| seed | `1` |" in text and r"| tune | `a\|b` |" in text
    assert f"| jax | {versions()['jax']} |" in text
    links = re.findall(r"\]\(<?([^)>]+)>?\)", text)
    assert set(links) == {"figures/heat map.png", "grouping.json", "results.json"}
    assert all((tmp_path / link).exists() for link in links)
    assert str(tmp_path) not in text  # the folder may move
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["accuracy"] == record["accuracy"] and saved["timings"]["train"] == 70.5


def test_tasks_that_never_conflict_are_said_to(tmp_path, record):
    matrices = GROUPS["matrices"] | {"conflict_rate": np.zeros((3, 3)).tolist()}
    _, text = write(tmp_path, record, GROUPS | {"matrices": matrices})
    assert "no two tasks' gradients conflict" in text and "most frequent conflict" not in text


def test_mistakes_are_a_table_and_a_picture_of_each(tmp_path):
    page, matrix = Page(tmp_path), np.array([[5, 1], [0, 9]])
    found = [
        Confusion("ink", ["cat", "dog"], matrix, [("cat", "dog", "1 of 6")]),
        Confusion("oil", ["cat", "dog"], np.eye(2, dtype=int), []),
    ]
    run_page.add_mistakes(page, found, titles="task", examples="images")
    assert page.parts[:2] == [
        "## Mistakes",
        "| task | class | taken for | images |\n|:--|:--|:--|--:|\n| ink | cat | dog | 1 of 6 |",
    ]
    assert page.pictures == ["figures/confusion_0.png", "figures/confusion_1.png"]
    assert all((tmp_path / name).exists() for name in page.pictures) and "oil: what the test images" in page.parts[3]
