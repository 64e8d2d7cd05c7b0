"""Reports and pictures: numbers against arithmetic by hand, links that resolve, pictures that show the data."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.reporting import figures, page

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
    return page.results(NAMES, [200, 60, 6], correct, trainable=129_744, total=149_750_481)


def test_results_against_arithmetic_by_hand(record):
    assert record["accuracy"] == {"zero-shot": [50.0, 50.0, 0.0], "MmAP": [60.0, 75.0, 50.0]}
    assert record["average"] == pytest.approx({"zero-shot": 100 / 3, "MmAP": 185 / 3})  # over tasks, not over images
    assert record["gain"] == [10.0, 25.0, 50.0] and record["average_gain"] == pytest.approx(85 / 3)
    assert record["share"] == pytest.approx(0.0866, abs=1e-4)
    assert json.loads(json.dumps(record)) == record


def test_table_says_the_numbers_and_is_aligned(record):
    lines = page.table(record).splitlines()
    assert lines[0].split() == ["task", "images", "zero-shot", "MmAP", "gain"]
    assert lines[2].split() == ["line", "200", "50.0", "60.0", "+10.0"]
    assert lines[4].split() == ["filled", "6", "0.0", "50.0", "+50.0"]
    assert lines[6].split() == ["average", "266", "33.3", "61.7", "+28.3"]
    assert len({len(line) for line in lines[:-1]}) == 1
    assert lines[-1] == "trainable parameters: 129,744 of 149,750,481 (0.087 %)"


def test_losses_carry_their_sign_and_one_model_has_no_gain():
    worse = page.results(["a"], [10], {"x": [5], "y": [4]}, trainable=1, total=2)
    assert page.table(worse).splitlines()[2].split() == ["a", "10", "50.0", "40.0", "-10.0"]
    alone = page.results(["a"], [10], {"x": [5]}, trainable=1, total=2)
    assert "gain" not in page.table(alone) + page.markdown(alone)


def test_markdown_has_the_cells_of_the_table(record):
    def words(text):
        return re.sub(r"[|*─]", " ", text).split()

    rows = page.markdown(record).splitlines()
    plain = page.table(record).splitlines()
    assert [words(row) for row in [rows[0], *rows[2:6]]] == [words(row) for row in [plain[0], *plain[2:5], plain[6]]]
    assert len({row.count("|") for row in rows[:6]}) == 1


def write(workdir, record, **changes):
    arguments = {
        "title": "MmAP on icons",
        "command": "python -m jax_promptmtl.main --config=configs/mmap.py",
        "record": record,
        "config": {"seed": 1, "tune": "a|b"},
        "timings": {"pretest": 2.0, "train": 70.5},
        "groups": GROUPS,
        "pictures": {"figures/heat map.png": "Task similarity"},
        "files": {"grouping.json": "groups"},
    }
    kept = {key: arguments[key] for key in ("record", "command", "timings")}
    page.write_results(workdir, **kept)
    return page.write_report(workdir, **(arguments | changes))


def test_report_holds_everything_and_its_links_resolve(tmp_path, record):
    (tmp_path / "figures").mkdir()
    figures.heat_map(tmp_path / "figures/heat map.png", NAMES, {"dot": np.eye(3)})
    (tmp_path / "grouping.json").write_text("{}")
    text = write(tmp_path, record).read_text()
    assert page.markdown(record) in text
    assert "```\npython -m jax_promptmtl.main --config=configs/mmap.py\n```" in text
    assert "**line + duotone; filled**" in text and "behind by 0.125" in text
    assert "88 %" in text and "duotone and filled, in 75 %" in text
    assert "| train | 1 min 10 s |" in text and "| all | 1 min 12 s |" in text
    assert "| seed | `1` |" in text and r"| tune | `a\|b` |" in text
    assert f"| jax | {page.versions()['jax']} |" in text
    links = re.findall(r"\]\(<?([^)>]+)>?\)", text)
    assert set(links) == {"figures/heat map.png", "grouping.json", "results.json"}
    assert all((tmp_path / link).exists() for link in links)
    assert str(tmp_path) not in text  # the folder may move
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["accuracy"] == record["accuracy"] and saved["timings"]["train"] == 70.5


def test_tasks_that_never_conflict_are_said_to(tmp_path, record):
    matrices = GROUPS["matrices"] | {"conflict_rate": np.zeros((3, 3)).tolist()}
    text = write(tmp_path, record, groups=GROUPS | {"matrices": matrices}, pictures=None, files=None).read_text()
    assert "no two tasks' gradients conflict" in text and "most frequent conflict" not in text


def test_report_without_groups_or_pictures(tmp_path, record):
    text = write(tmp_path, record, groups=None, pictures=None, files=None).read_text()
    assert "## Task groups" not in text and "## Pictures" not in text


def test_report_refuses_pictures_that_are_not_there(tmp_path, record):
    with pytest.raises(UserError, match=r"figures/heat map.png, grouping.json"):
        write(tmp_path, record)
    assert not (tmp_path / "report.md").exists()


def picture(path):
    """Return a written picture as uint8 [h, w, 3], and check that it is not blank."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert pixels.shape[0] > 200 and pixels.shape[1] > 500
    assert 0.01 < np.mean(np.any(pixels < 250, axis=-1)) < 0.95
    return pixels


def share(pixels, colour):
    """Return the share of pixels within 12 levels of a colour such as "#0072B2"."""
    target = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return np.mean(np.all(np.abs(pixels.astype(int) - target) <= 12, axis=-1))


def test_heat_map_colours_signs_and_frames_groups(tmp_path):
    path = tmp_path / "heat.png"

    def draw(value, groups=None, tasks=3):
        matrix = np.full((tasks, tasks), value) + 100 * np.eye(tasks)  # a large diagonal must not set the scale
        figures.heat_map(path, [f"t{i}" for i in range(tasks)], {"dot": matrix, "cosine": matrix}, groups)
        return picture(path)

    blue, red = "#053061", "#67001f"  # the ends of RdBu
    positive, negative = draw(1e-6), draw(-1e-6)
    assert share(positive, blue) > 0.1 > 10 * share(positive, red)
    assert share(negative, red) > 0.1 > 10 * share(negative, blue)
    assert share(draw(1e-6, [[0, 2], [1]]), figures.INK) > 2 * share(positive, figures.INK)
    assert draw(1.0, tasks=20).shape[0] > 900
    draw(0.0)


def test_similarity_curves_and_partition_bars(tmp_path):
    course = np.random.default_rng(0).normal(size=(4, 3, 3))
    figures.similarity_curves(tmp_path / "course.png", NAMES, range(4), course, [[0, 1], [2]])
    pixels = picture(tmp_path / "course.png")
    assert share(pixels, figures.PALETTE[0]) > 1e-3  # the one pair of a group
    assert share(pixels, figures.PALETTE[1]) == 0  # no second one
    ranking = [(((0, 1), (2,)), 0.5), (((0, 1, 2),), 0.25)]
    figures.partition_bars(tmp_path / "bars.png", NAMES, ranking, "mean")
    bars = Image.open(tmp_path / "bars.png").convert("RGB")
    best, other = share(np.asarray(bars), figures.PALETTE[0]), share(np.asarray(bars), "#C9CED3")
    assert best / other == pytest.approx(2, rel=0.05)


def test_curves(tmp_path):
    records = [{"stage": "group", "step": s, "loss": 3 - s / 50, "accuracy/a": s / 100} for s in range(100)]
    records += [{"stage": "train", "step": s, "loss": 2.0} for s in range(100)]
    records += [{"stage": "train", "step": 50, "evaluation": {"accuracy": 0.5}}]
    figures.curves(tmp_path / "curves.png", records)
    pixels = picture(tmp_path / "curves.png")
    assert pixels.shape[0] > 800 and share(pixels, figures.PALETTE[0]) > 1e-4
    beside = [{"stage": "s", "step": s, f"loss/{row}": s} for s in range(9) for row in ("a", "b")]  # no loss of all
    figures.curves(tmp_path / "rows.png", beside)
    assert min(share(picture(tmp_path / "rows.png"), colour) for colour in figures.PALETTE[:2]) > 1e-4
    figures.curves(tmp_path / "loss.png", [{"stage": "train", "step": 0, "loss": 1.0}])  # a run of one step
    assert Image.open(tmp_path / "loss.png").size[1] < pixels.shape[0]
    once = np.asarray(Image.open(tmp_path / "loss.png").convert("RGB"))
    figures.curves(tmp_path / "none.png", [{"stage": "train", "step": 0, "loss": float("nan")}])
    empty = np.asarray(Image.open(tmp_path / "none.png").convert("RGB"))
    assert share(once, figures.INK) > share(empty, figures.INK) + 1e-4  # one point has no line, but is seen


@pytest.mark.parametrize("length", [1, 5, 39, 40, 200])
def test_smoothing_keeps_lines_and_length(length):
    line = np.linspace(2, 3, length)
    smooth = figures._smooth(line)
    half = length // 40
    assert smooth.shape == line.shape
    np.testing.assert_allclose(smooth[half : length - half], line[half : length - half])


def test_example_grid_marks_right_and_wrong(tmp_path):
    def draw(after):
        row = {"task": "line", "images": [np.full((8, 8, 3), 200, np.uint8)] * 4, "labels": ["cat"] * 4}
        row |= {"before": ["dog"] * 4, "after": [after] * 4}
        figures.example_grid(tmp_path / "grid.png", [row, row], "zero-shot", "MmAP")
        return picture(tmp_path / "grid.png")

    improved, wrong = draw("cat"), draw("dog")
    assert share(improved, figures.RIGHT) > 1e-4 and share(wrong, figures.RIGHT) == 0
    assert share(wrong, figures.WRONG) > 1.5 * share(improved, figures.WRONG)


def test_class_gains(tmp_path):
    figures.class_gains(tmp_path / "gains.png", ["a", "b", "c"], [10, -5, 0], "Gain")
    pixels = picture(tmp_path / "gains.png")
    ratio = share(pixels, figures.PALETTE[0]) / share(pixels, figures.PALETTE[1])
    assert ratio == pytest.approx(2, rel=0.1)
    figures.class_gains(tmp_path / "many.png", [f"c{i}" for i in range(200)], range(200), "Gain")
    assert picture(tmp_path / "many.png").shape[1] < 2500
