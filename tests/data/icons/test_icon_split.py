"""No drawing is on two sides of the split, and none that is held out was seen in pretraining."""

import itertools
import json
from collections import Counter, defaultdict

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.icons import concepts, division, icon_corpus, icon_split


@pytest.fixture(scope="module")
def found():
    return division.collect()


@pytest.fixture(scope="module")
def rows():
    return icon_split.rows()


def correlations(left, right):
    """Pearson correlations of reduced, blurred masks; formula and code other than the library's."""

    blur = 4 * np.eye(32) + np.eye(32, k=1) + np.eye(32, k=-1)

    def describe(masks):
        small = masks.astype(np.float64).reshape(-1, 32, 2, 32, 2).mean((2, 4))
        blurred = (blur @ small @ blur).reshape(-1, 1024)
        return (blurred - blurred.mean(1, keepdims=True)) / blurred.std(1, keepdims=True) / 32

    return describe(left) @ describe(right).T


def test_the_committed_file_is_what_the_command_writes(found):
    assert division.make(found) == icon_split.read()


def test_every_class_has_a_training_and_a_test_drawing_in_every_style(rows):
    groups = Counter(
        (row.style, row.label, row.part) for row in {(r.style, r.label, r.group): r for r in rows}.values()
    )
    assert list(division.STYLES) == ["line", "clip", "product", "real"]
    for style, label in itertools.product(division.STYLES, concepts.CLASSES):
        train, tune, test = (groups[style, label, part] for part in icon_split.PARTS)
        assert train >= 1 and test >= 1, (style, label)
        assert tune >= 1 or train == 1, (style, label)
        assert 0.25 <= test / (train + tune + test) <= 0.6, (style, label)


def test_a_family_is_in_one_style_and_a_glyph_in_one_place(rows):
    style_of = {family: style for style, families in division.STYLES.items() for family in families}
    assert len(style_of) == sum(map(len, division.STYLES.values()))
    assert all(style_of[row.key.split(":")[0]] == row.style for row in rows)
    assert max(Counter(row.key for row in rows).values()) == 1


def test_no_drawing_is_in_two_parts_by_brute_force(found, rows):
    masks = dict(zip(found.keys, found.masks, strict=True))
    by_part = {p: np.stack([masks[row.key] for row in rows if row.part == p]) for p in icon_split.PARTS}
    for left, right in itertools.combinations(icon_split.PARTS, 2):
        assert correlations(by_part[left], by_part[right]).max() < 0.9 + 1e-5, (left, right)


def test_variants_of_one_icon_are_in_one_part(rows):
    parts = defaultdict(set)
    for row in rows:
        family, name = row.key.split(":")
        endings = {"remix": ("-fill", "-line"), "phosphor": ("-bold", "-fill"), "bootstrap": ("-fill",)}
        for ending in endings.get(family, ("-outline",)):
            name = name.removesuffix(ending)
        parts[family, name.replace("bxs-", "bx-")].add(row.part)
    assert len(parts) < len(rows) * 0.7
    assert {len(found) for found in parts.values()} == {1}


def test_a_drawing_is_never_under_two_classes(found, rows):
    masks = dict(zip(found.keys, found.masks, strict=True))
    kept = np.stack([masks[row.key] for row in rows])
    label = np.array([row.label for row in rows])
    twins = (correlations(kept, kept) >= 0.9 + 1e-5) & (label[:, None] != label[None])
    assert not twins.any()
    assert len(rows) >= 0.85 * len(found.keys)  # and this cost few glyphs


def test_an_edited_split_is_refused(tmp_path, monkeypatch):
    stored = json.loads(icon_split.PATH.read_text())
    moved = stored["split"]["line"]["heart"]
    moved["train"].append(moved["test"].pop())
    (tmp_path / "icon_split.json").write_text(json.dumps(stored))
    monkeypatch.setattr(icon_split, "PATH", tmp_path / "icon_split.json")
    with pytest.raises(UserError, match="edited by hand"):
        icon_split.read()


@pytest.mark.slow
def test_the_corpus_has_no_downstream_family_and_no_held_out_drawing(found, rows):
    masks, captions, named, keys = icon_corpus.corpus()
    assert masks.shape == (len(keys), 64, 64) and len(keys) == len(captions) == len(named) == len(set(keys)) > 15_000
    families = {key.split(":")[0] for key in keys}
    assert families == set(icon_corpus.FAMILIES)
    assert not families & {family for families in division.STYLES.values() for family in families}
    assert len({mask.tobytes() for mask in masks}) == len(masks)
    drawn = dict(zip(found.keys, found.masks, strict=True))
    held_out = np.stack([drawn[row.key] for row in rows if row.part != "train"])
    for start in range(0, len(masks), 2048):
        assert correlations(masks[start : start + 2048], held_out).max() < 0.9 + 1e-5
    assert all(captions) and set(concepts.CLASSES) <= set(named)
