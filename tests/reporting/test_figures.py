"""Figures of one run: they show the data, and no figure is blank."""

import numpy as np
import pytest
from PIL import Image

from jax_promptmtl.reporting import figures
from jax_promptmtl.reporting.style import INK, PALETTE
from tests.pages import colour_share, picture

NAMES = ["line", "duotone", "filled"]


def test_heat_map_colours_signs_and_frames_groups(tmp_path):
    path = tmp_path / "heat.png"

    def draw(value, groups=None, tasks=3):
        matrix = np.full((tasks, tasks), value) + 100 * np.eye(tasks)  # a large diagonal must not set the scale
        figures.heat_map(path, [f"t{i}" for i in range(tasks)], {"dot": matrix, "cosine": matrix}, groups)
        return picture(path)

    blue, red = "#053061", "#67001f"  # the ends of RdBu
    positive, negative = draw(1e-6), draw(-1e-6)
    assert colour_share(positive, blue) > 0.1 > 10 * colour_share(positive, red)
    assert colour_share(negative, red) > 0.1 > 10 * colour_share(negative, blue)
    assert colour_share(draw(1e-6, [[0, 2], [1]]), INK) > 2 * colour_share(positive, INK)
    assert draw(1.0, tasks=20).shape[0] > 900
    draw(0.0)


def test_similarity_curves_and_partition_bars(tmp_path):
    course = np.random.default_rng(0).normal(size=(4, 3, 3))
    figures.similarity_curves(tmp_path / "course.png", NAMES, range(4), course, [[0, 1], [2]])
    pixels = picture(tmp_path / "course.png")
    assert colour_share(pixels, PALETTE[0]) > 1e-3  # the one pair of a group
    assert colour_share(pixels, PALETTE[1]) == 0  # no second one
    ranking = [(((0, 1), (2,)), 0.5), (((0, 1, 2),), 0.25)]
    figures.partition_bars(tmp_path / "bars.png", NAMES, ranking, "mean")
    bars = Image.open(tmp_path / "bars.png").convert("RGB")
    best, other = colour_share(np.asarray(bars), PALETTE[0]), colour_share(np.asarray(bars), "#C9CED3")
    assert best / other == pytest.approx(2, rel=0.05)


def test_curves(tmp_path):
    records = [{"stage": "group", "step": s, "loss": 3 - s / 50, "accuracy/a": s / 100} for s in range(100)]
    records += [{"stage": "train", "step": s, "loss": 2.0} for s in range(100)]
    records += [{"stage": "train", "step": 50, "evaluation": {"accuracy": 0.5}}]
    figures.curves(tmp_path / "curves.png", records)
    pixels = picture(tmp_path / "curves.png")
    assert pixels.shape[0] > 800 and colour_share(pixels, PALETTE[0]) > 1e-4
    beside = [{"stage": "s", "step": s, f"loss/{row}": s} for s in range(9) for row in ("a", "b")]  # no loss of all
    figures.curves(tmp_path / "rows.png", beside)
    assert min(colour_share(picture(tmp_path / "rows.png"), colour) for colour in PALETTE[:2]) > 1e-4
    figures.curves(tmp_path / "loss.png", [{"stage": "train", "step": 0, "loss": 1.0}])  # a run of one step
    with Image.open(tmp_path / "loss.png") as image:
        once = np.asarray(image.convert("RGB"))
    assert once.shape[0] < pixels.shape[0]
    figures.curves(tmp_path / "none.png", [{"stage": "train", "step": 0, "loss": float("nan")}])
    empty = np.asarray(Image.open(tmp_path / "none.png").convert("RGB"))
    assert colour_share(once, INK) > colour_share(empty, INK) + 1e-4  # one point has no line, but is seen


@pytest.mark.parametrize("length", [1, 5, 39, 40, 200])
def test_smoothing_keeps_lines_and_length(length):
    line = np.linspace(2, 3, length)
    smooth = figures._smooth(line)
    half = length // 40
    assert smooth.shape == line.shape
    np.testing.assert_allclose(smooth[half : length - half], line[half : length - half])


def test_class_gains(tmp_path):
    figures.class_gains(tmp_path / "gains.png", ["a", "b", "c"], [10, -5, 0], "Gain")
    pixels = picture(tmp_path / "gains.png")
    ratio = colour_share(pixels, PALETTE[0]) / colour_share(pixels, PALETTE[1])
    assert ratio == pytest.approx(2, rel=0.1)
    figures.class_gains(tmp_path / "many.png", [f"c{i}" for i in range(200)], range(200), "Gain")
    assert picture(tmp_path / "many.png").shape[1] < 2500
