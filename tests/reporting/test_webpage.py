"""Pages of one file: nothing is fetched, pictures are inside, what users name is text."""

import numpy as np
import pytest
from PIL import Image

from jax_promptmtl.reporting import webpage
from jax_promptmtl.reporting.examples import Examples, gallery
from jax_promptmtl.reporting.page import Page as ReportPage
from tests.pages import Page

EVIL = '<img src="http://evil.example/x.png" onerror="alert(1)"> <script>alert(2)</script> & "]('


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "figures").mkdir()
    Image.fromarray(np.full((30, 50, 3), 200, np.uint8)).save(tmp_path / "figures" / "a map.png")
    return tmp_path


def page_of(folder, text, panels=None):
    (folder / "report.md").write_text(text, "utf-8")
    return Page(webpage.write_html(folder / "report.md", panels).read_text("utf-8"))


def picture(folder, caption):
    """Return the Markdown of a picture."""
    page = ReportPage(folder)
    page.picture("a map.png", caption)
    return page.parts[0]


def test_a_picture_and_its_caption_are_one_figure(folder):
    page = page_of(folder, "# Title\n\n## One\n\n" + picture(folder, "All [1] *tasks*") + "\n\n## Two")
    ((words, image),) = page.images
    assert words == "All [1] *tasks*" and image.size == (50, 30) and page.text.count(words) == 1
    assert page.wanted == {"h2-0", "h2-1"} and {"figure", "figcaption", "nav"} <= page.tags


def test_what_users_name_is_text(folder):
    table = f"| task | gain |\n|:--|--:|\n| {EVIL.replace('|', '')} | **1.0** |\n| <u>5</u> | <u> |"
    text = f"# {EVIL}\n\n## {EVIL}\n\n{EVIL}\n\n`{EVIL}`\n\n{table}\n\n" + picture(folder, EVIL)
    panels = {"figures/a map.png": gallery([row(EVIL)], (EVIL, "b"))}
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
    images = [np.zeros((8, 9, 3)), np.full((400, 200, 3), 128, np.uint8)]
    return Examples(name, images, [name, "cat"], ["dog", "cat"], [name, "dog"])
