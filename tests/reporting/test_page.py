"""The kit of pages: pictures that are there, sections that fail alone, CSV and LaTeX beside the page."""

import pytest
from PIL import Image

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.reporting.page import Page
from jax_promptmtl.reporting.typeset import Cell, Sheet


def test_a_page_refuses_pictures_that_are_not_there(tmp_path):
    page = Page(tmp_path)
    page.say("# Title")
    drawn, _ = page.picture("a map.png", "A map"), page.picture("other.png", "Another")
    Image.new("RGB", (9, 9)).save(drawn)
    with pytest.raises(UserError, match=r"shows figures/other.png, which .* does not hold"):
        page.save()
    assert not (tmp_path / "report.md").exists()


def test_a_section_that_fails_takes_its_own_parts_alone(tmp_path, capsys):
    page = Page(tmp_path)
    page.say("# Title")

    def fail():
        page.say("half of it")
        page.picture("never drawn.png", "Nothing")
        raise ValueError("no `ink`")

    page.attempt("Colours", fail)
    page.attempt("Words", lambda: page.say("## Words"))
    text = page.save().read_text("utf-8")
    said = "Colours cannot be shown: ValueError: no 'ink'"
    assert text == f"# Title\n\n## Colours\n\n`{said}`\n\n## Words\n"
    assert "Colours cannot be shown" in capsys.readouterr().err and (tmp_path / "report.html").exists()


def test_tables_with_a_caption_are_in_the_latex_file_too(tmp_path):
    page, sheet = Page(tmp_path), Sheet(("a|b", "c"), [(Cell("x|y"), Cell("1", 1))])
    page.show(sheet)
    page.show(sheet, "All of it")
    assert page.parts == ["| a\\|b | c |\n|:--|--:|\n| x\\|y | **1** |"] * 2
    assert len(page.tex) == 1 and "\\caption{All of it}" in page.tex[0]
    page.write_csv("numbers.csv", ["a", "b"], [[1, "x,y"]])
    assert (tmp_path / "numbers.csv").read_text() == 'a,b\n1,"x,y"\n'
