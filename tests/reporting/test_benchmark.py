"""The report of a benchmark: what is written, from records alone, and what a mistake says."""

import csv
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jax_promptmtl import report
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.reporting import benchmark, records
from jax_promptmtl.reporting.collect import AVERAGE, collect_images
from tests.pages import Page, balanced
from tests.tiny import make_record

KEYS = records.KEYS | records.CELL["images"]
GROUPING = {
    "tasks": ["task0", "task1"],
    "groups": [["task0", "task1"]],
    "matrices": {"dot": [[2.0, 1.0], [1.0, 2.0]]},
    "stability": 0.9,
}
METHODS = ("zero_shot", "coop", "vpt", "maple", "joint", "mlp", "mmap", "mmap_task", "full_ft")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a folder with the records of a made-up grid of two numbers of shots."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    for shots in (1, 2):
        for number, method in enumerate(METHODS):
            for seed in range(3):
                right = [rng.random(40) < 0.4 + 0.03 * number + 0.1 * shots for _ in range(2)]
                extra = {"grouping": GROUPING} if method == "mmap" else {}
                sizes = {"trainable": 40**number if number else 0, "total": 40**9}
                record = make_record(method, seed, right, shots=shots, id=f"{method}{shots}{seed}", **sizes, **extra)
                records.save(folder / "records" / f"{record['id']}.json", record)
    failed = {key: make_record()[key] for key in KEYS} | {
        "id": "bad",
        "status": "failed",
        "error": "diverged",
    }
    records.save(folder / "records" / "bad.json", failed)
    (folder / "records" / "torn.json").write_text('{"schema": 1, "id"')
    return folder


def test_the_report_is_made_from_records_alone(runs, tmp_path):
    told = benchmark.write_benchmark(runs, tmp_path)
    assert len(told) == 1 and "torn.json" in told[0]
    page = (tmp_path / "report.md").read_text()
    assert all(method in page for method in METHODS) and "ddof = 1" in page and "torn.json" in page
    assert "Kronecker prompts beat joint and MLP prompts?" in page and "- bad: diverged" in page
    pictures = re.findall(r"\(<(figures/[^>]+)>\)", page)
    kinds = {re.match(r"figures/([a-z]+)", name)[1] for name in pictures}
    assert kinds == {"trade", "prompts", "differences", "similarity", "shots"}
    for name in pictures:
        with Image.open(tmp_path / name) as image:
            assert min(image.size) > 200
    found = Page((tmp_path / "report.html").read_text("utf-8"))
    assert len(found.images) == len(pictures) and all(method in found.text for method in METHODS)
    assert "<u>" not in found.text and "u" in found.tags
    assert balanced((tmp_path / "report.tex").read_text())
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(METHODS) * 3 and {row["seeds"] for row in rows} == {"3"}
    made, _ = collect_images(records.read_all(runs)[0])
    chosen = [row for row in rows if (row["shots"], row["method"], row["task"]) == ("2", "vpt", "average")]
    assert float(chosen[0]["mean"]) == pytest.approx(made[1].row("vpt").mean(AVERAGE), abs=1e-4)


def test_the_report_of_a_packed_file_is_the_same(runs, tmp_path):
    packed = tmp_path / "records.jsonl.gz"
    report.start([str(runs), f"--out={tmp_path / 'one'}", f"--pack={packed}"])
    report.start([str(packed), f"--out={tmp_path / 'two'}"])
    one, two = ((tmp_path / name / "report.tex").read_bytes() for name in ("one", "two"))
    assert one == two
    assert packed.stat().st_size < sum(path.stat().st_size for path in (runs / "records").iterdir()) / 5


def test_an_empty_folder_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="holds no record"):
        benchmark.write_benchmark(tmp_path, tmp_path / "out")
    (tmp_path / "report.html").touch()
    with pytest.raises(UserError, match=r"the report of this one run is .*report\.html"):
        benchmark.write_benchmark(tmp_path, tmp_path / "out")
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "x.json").write_text(json.dumps({"schema": 9}))
    with pytest.raises(UserError, match="schema 9"):
        benchmark.write_benchmark(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_a_mistake_in_one_sentence(tmp_path):
    command = [sys.executable, "-m", "jax_promptmtl.report", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: There is no folder") and not done.stdout
