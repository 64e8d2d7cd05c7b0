"""Annotation files of any kind of damage: one sentence with the file and the place."""

import json
import os

import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.videos import annotations


class Row(annotations.Record):
    """A row of these tests."""

    id: int
    bbox: tuple[float, float] | None = None


def read(path, content):
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return annotations.read_json(path, list[Row])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"id": 1}, {"id": "2"}], r"\[1\]\.id: expected int, got str;"),
        ([{"id": 1, "bbox": [1, None]}], r"\[0\]\.bbox\[1\]: expected float, got null"),
        ([{"bbox": None}], r"\[0\]: lacks 'id'"),
        ({"id": 1}, "the file: expected array, got object"),
        (None, "the file: expected array, got null"),
        (b"", "it is no JSON: input data was truncated"),
        (b'[{"id": 1},\n {"id": NaN}]', "it is no JSON: invalid character in line 2, column 9"),
        (b'[{"id": 1, "x": Infinity}]', "invalid character in line 1"),
        (b'[{"id": 1e999}]', r"\[0\]"),
        (b'[{"id": "\xff"}]', r"\[0\]|UTF-8"),
        ('[{"id": 1}]'.encode("utf-16"), "it is no JSON"),
        (b'[{"id": 1, "x": ' + b"[" * 100_000, "it is nested too deeply"),
        (b"[" * 100_000, r"\[0\]: expected object, got array"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is no JSON: invalid character in line 1, column 1"),
    ],
)
def test_json_of_another_kind_is_named_with_its_place(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / "a.json", content)
    assert "a.json" in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_what_nobody_needs_is_passed_over(tmp_path):
    (row,) = read(tmp_path / "a.json", b'\xef\xbb\xbf[{"id": 1, "bbox": null, "x": {"y": [null, "z"]}}]')
    assert row.id == 1 and row.bbox is None


def test_values_of_an_object_are_named_by_their_key(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"first": {"id": 1}, "second": {"id": 1.5}}')
    with pytest.raises(UserError, match=r"\['second'\].id: expected int, got float"):
        annotations.read_table(path, Row)


def test_what_is_no_file_or_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="No such file"):
        annotations.read_lines(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UserError, match="are no file"):
            annotations.read_json(place, list[Row])
    (tmp_path / "a.txt").write_text("12345")
    monkeypatch.setattr(annotations, "LARGEST", 4)
    with pytest.raises(UserError, match="have more than 4 bytes"):
        annotations.read_lines(tmp_path / "a.txt")


def test_lines_are_numbered_as_editors_do(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa 1\r\n\r\n b 2 \rc\x0b\x1cd\n")
    assert annotations.numbered_lines(path) == {1: "a 1", 3: "b 2", 4: "c\x0b\x1cd"}
    with pytest.raises(UserError, match=r"Line 4 of .*must look like 'x 1'"):
        annotations.rows_of(path, lambda line: annotations.whole(line.split()[1]), "x 1")
    path.write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match="no UTF-8 text"):
        annotations.read_lines(path)


@pytest.mark.parametrize("text", ["", "-1", "1.0", "1e3", "1_0", "\u0663", "9" * 5000, "nan"])
def test_whole_numbers_are_digits(text):
    with pytest.raises(ValueError):
        annotations.whole(text)


@pytest.mark.parametrize("text", ["", "nan", "inf", "-Infinity", "1e999", "1_0", "\u0663", "0x1", ".", "1,5"])
def test_numbers_are_finite(text):
    with pytest.raises(ValueError):
        annotations.real(text)
    assert [annotations.real(good) for good in ("0902", "-1", ".5", "3.", "1e-3")] == [902, -1, 0.5, 3, 0.001]
