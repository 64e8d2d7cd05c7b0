"""Files that a crash cannot cut in half, and JSON that somebody has changed."""

import os

import pytest

from jax_promptmtl.core import files
from jax_promptmtl.core.errors import UserError


def test_a_text_is_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    for text in ("first", "second é"):
        files.write_whole(path, text)
        assert path.read_text("utf-8") == text
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_crash_before_the_end_leaves_the_old_text(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_whole(path, "old")

    def fail(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        files.write_whole(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b'"a"', b"[" * 100_000])
def test_what_is_no_json_object_is_one_sentence(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json"):
        files.read_json(tmp_path / "a.json")
