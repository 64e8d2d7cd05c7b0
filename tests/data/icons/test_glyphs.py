"""Rendering of real glyphs from the installed wheels."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.icons import glyphs


def test_every_family_is_in_its_wheel_with_names_and_a_licence():
    for family, entry in glyphs.FAMILIES.items():
        font, names = glyphs.locate(family)
        assert font.suffix in {".ttf", ".otf"} and len(glyphs.read_names(names)) > 200, family
        assert entry.licence, family


def test_packages_are_located_but_never_imported():
    code = (
        "import sys; from jax_promptmtl.data.icons import glyphs; [glyphs.locate(f) for f in glyphs.FAMILIES];"
        "print(sorted({e.package for e in glyphs.FAMILIES.values()} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_masks_are_centred_on_their_long_side_and_the_same_every_time():
    names, masks = glyphs.render_masks("typicons")
    assert masks.shape == (len(names), 64, 64) and masks.dtype == np.uint8 and names == sorted(names)
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        extent = [rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1]
        assert 54 <= max(extent) <= glyphs.LONG_SIDE
        assert abs(rows[0] + rows[-1] - 63) <= 3 and abs(columns[0] + columns[-1] - 63) <= 3
    assert np.unique(masks).size > 100  # antialiased
    again, same = glyphs.render_masks("typicons")
    assert again == names and np.array_equal(same, masks)


def test_keys_render_in_the_order_asked():
    names, masks = glyphs.render_masks("typicons", only={"typcn-heart", "typcn-star"})
    assert names == ["typcn-heart", "typcn-star"]
    assert np.array_equal(glyphs.render_keys(["typicons:typcn-star", "typicons:typcn-heart"]), masks[::-1])


def test_logos_and_thin_weights_are_left_out():
    for family, word in (("boxicons", "bxl-"), ("ion", "social-"), ("phosphor", "-logo"), ("phosphor", "-thin")):
        named = glyphs.read_names(glyphs.locate(family)[1])
        assert any(word in name for name in named)
        assert not any(word in name for name in glyphs.list_names(family))


def test_names_are_read_from_every_format(tmp_path):
    (tmp_path / "a.css").write_text('.x-bell:before {\n content: "\\ef48";\n}\n.no-glyph { color: red }')
    (tmp_path / "a.codepoints").write_text("10k e951\nhome e88a\n")
    (tmp_path / "a.json").write_text(json.dumps({"a": "0xf1", "b": "f2", "c": 243, "d": {"encodedCode": "\\f4"}}))
    assert glyphs.read_names(tmp_path / "a.css") == {"x-bell": 0xEF48}
    assert glyphs.read_names(tmp_path / "a.codepoints") == {"10k": 0xE951, "home": 0xE88A}
    assert glyphs.read_names(tmp_path / "a.json") == {"a": 0xF1, "b": 0xF2, "c": 0xF3, "d": 0xF4}


@pytest.mark.parametrize(
    ("family", "install"), [("fluent_reg", r"jax_promptmtl\[pretrain\]"), ("eva", "pip install 'tkinter-icons-eva'")]
)
def test_a_missing_wheel_is_one_sentence_that_names_what_to_install(monkeypatch, family, install):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=install):
        glyphs.locate(family)


def test_an_unknown_family_or_glyph_is_a_user_error():
    with pytest.raises(UserError, match="Did you mean 'lucide'"):
        glyphs.render_masks("lucid")
    with pytest.raises(UserError, match="has no glyph 'typicons:typcn-unicorn'"):
        glyphs.render_keys(["typicons:typcn-unicorn"])
