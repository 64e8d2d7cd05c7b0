"""Pages of one file: nothing is fetched, pictures are inside, what users name is text."""

import numpy as np
import pytest
from PIL import Image

from jax_promptmtl.reporting import page as report_page
from jax_promptmtl.reporting import webpage
from tests.pages import Page

EVIL = '<img src="http://evil.example/x.png" onerror="alert(1)"> <script>alert(2)</script> & "]('

NAMES = ("labels", "before", "after")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "figures").mkdir()
    Image.fromarray(np.full((30, 50, 3), 200, np.uint8)).save(tmp_path / "figures" / "a map.png")
    return tmp_path


def page_of(folder, text, panels=None):
    (folder / "report.md").write_text(text, "utf-8")
    return Page(webpage.write(folder / "report.md", panels).read_text("utf-8"))


def test_a_picture_and_its_caption_are_one_figure(folder):
    page = page_of(
        folder, "# Title\n\n## One\n\n" + report_page.picture("figures/a map.png", "All [1] *tasks*") + "\n\n## Two"
    )
    ((words, image),) = page.images
    assert words == "All [1] *tasks*" and image.size == (50, 30) and page.text.count(words) == 1
    assert page.wanted == {"h2-0", "h2-1"} and {"figure", "figcaption", "nav"} <= page.tags


def test_what_users_name_is_text(folder):
    table = f"| task | gain |\n|:--|--:|\n| {EVIL.replace('|', '')} | **1.0** |\n| <u>5</u> | <u> |"
    text = f"# {EVIL}\n\n## {EVIL}\n\n{EVIL}\n\n`{EVIL}`\n\n{table}\n\n" + report_page.picture(
        "figures/a map.png", EVIL
    )
    panels = {"figures/a map.png": webpage.gallery([row(EVIL)], EVIL, "b")}
    page = page_of(folder, text, panels)
    assert page.text.count("<script>alert(2)</script>") >= 8 and "table" in page.tags
    assert len(page.images) == 2  # the thumbnails alone


@pytest.mark.parametrize(
    "source", ["http://evil.example/x.png", "../outside.png", "missing.png", "//evil.example/x.png"]
)
def test_pictures_from_elsewhere_are_words(folder, source):
    Image.new("RGB", (9, 9)).save(folder.parent / "outside.png")
    page = page_of(folder, f"# Title\n\n![a picture](<{source}>)\n\nIn a line ![of text](<figures/a map.png>).")
    assert not page.images and "a picture" in page.text and "of text" in page.text


def test_links_are_words(folder):
    page = page_of(folder, "# Title\n\n[results](<results.json>) [x](http://evil.example) <http://evil.example>")
    assert "a" not in page.tags and "results x http://evil.example" in page.text


def row(name):
    flat = np.zeros((8, 9, 3))
    images = [flat, np.full((400, 200, 3), 128, np.uint8)]
    return {"task": name, "images": images, "labels": [name, "cat"], "before": ["dog", "cat"], "after": [name, "dog"]}


def test_thumbnails_are_small_and_say_who_is_right(folder):
    page = page_of(folder, "# Title\n\n![all](<x.png>)", {"x.png": webpage.gallery([row("bell")], "before", "after")})
    assert [image.size for _, image in page.images] == [(9, 8), (80, 160)]
    for words in ("✗ before: dog", "✓ after: bell", "✓ before: cat", "✗ after: dog"):
        assert words in page.text


def test_strips_stay_wide(folder):
    wide = {"task": "clips", "images": [np.zeros((64, 960, 3), np.uint8)]} | {key: ["spin"] for key in NAMES}
    page = page_of(folder, "# Title\n\n![all](<x.png>)", {"x.png": webpage.gallery([wide], "one", "two", strips=True)})
    assert [image.size for _, image in page.images] == [(480, 32)]
