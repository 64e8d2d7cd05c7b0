"""Examples of two models: right and wrong are marked in the grid, and thumbnails are small."""

import numpy as np

from jax_promptmtl.reporting.examples import Examples, example_grid, gallery
from jax_promptmtl.reporting.style import RIGHT, WRONG
from tests.pages import Page, colour_share, picture


def test_thumbnails_are_small_and_say_who_is_right():
    images = [np.zeros((8, 9, 3)), np.full((400, 200, 3), 128, np.uint8)]
    row = Examples("animals", images, ["bell", "cat"], ["dog", "cat"], ["bell", "dog"])
    page = Page(gallery([row], ("first", "second")))
    assert [image.size for _, image in page.images] == [(9, 8), (80, 160)]
    for words in ("✗ first: dog", "✓ second: bell", "✓ first: cat", "✗ second: dog"):
        assert words in page.text


def test_strips_stay_wide():
    wide = Examples("clips", [np.zeros((64, 960, 3), np.uint8)], ["spin"], ["spin"], ["spin"])
    page = Page(gallery([wide], ("one", "two"), strips=True))
    assert [image.size for _, image in page.images] == [(480, 32)]


def test_example_grid_marks_right_and_wrong(tmp_path):
    def draw(after):
        images = [np.full((8, 8, 3), 200, np.uint8)] * 4
        row = Examples("line", images, ["cat"] * 4, ["dog"] * 4, [after] * 4)
        example_grid(tmp_path / "grid.png", [row, row], ("zero-shot", "MmAP"))
        return picture(tmp_path / "grid.png")

    improved, wrong = draw("cat"), draw("dog")
    assert colour_share(improved, RIGHT) > 1e-4 and colour_share(wrong, RIGHT) == 0
    assert colour_share(wrong, WRONG) > 1.5 * colour_share(improved, WRONG)
