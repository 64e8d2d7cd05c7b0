"""One value of an annotation file changed at random: what is read is right, or the refusal is one sentence.

Values of another kind are known to be wrong, so that they must be refused, or leave what is read as it was (nobody
needs the value), or count as absent (null). Values of the same kind may change what is read, but not to nonsense.
"""

import copy
import json
import random

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import videos
from jax_promptmtl.data.videos import rle
from tests import video_trees

CHANGES = 60  # of each data set's JSON, and as many of its text
HUGE = 10**30
ODD = [None, "", "x", "1", [], [None], {}, {"a": 1}, [[[[0]]]], True, 0, -1, 1.5, HUGE, 1e308, float("nan"), "x" * 5000]
WORDS = [
    "",
    "null",
    "nan",
    "inf",
    "x",
    "-1",
    "0",
    "1.5",
    "1e999",
    str(HUGE),
    "[1]",
    '"',
    "٣",
    "a b",
    "1,2",
    "\x00",
    "x" * 5000,
]
JSON = [name for name in video_trees.TREES if name in ("ssv2", "thumos14", "imagenet_vid", "youtube_vis")]
TEXT = [name for name in video_trees.TREES if name not in (*JSON, "own")]
MEASURED = {"bbox", "segment", "duration", "fps"}
MISSING = object()


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Return {data set: (config, folder)} with annotations only."""
    with pytest.MonkeyPatch.context() as patch:
        for writer in ("write", "write_pictures"):
            patch.setattr(video_trees.clips, writer, lambda *arguments, **options: None)
        made = {name: tmp_path_factory.mktemp(name) for name in (*JSON, *TEXT)}
        return {name: (video_trees.TREES[name](place), place) for name, place in made.items()}


def places(content, path=()):
    """Yield the paths of all values of JSON, containers too; of long lists only the first values."""
    yield path
    if isinstance(content, dict | list):
        items = content.items() if isinstance(content, dict) else enumerate(content[:6])
        for key, value in items:
            yield from places(value, (*path, key))


def put(content, path, value):
    """Return JSON with one value replaced, or taken out."""
    if not path:
        return value
    changed = copy.deepcopy(content)
    *above, last = path
    at = changed
    for key in above:
        at = at[key]
    if value is MISSING:
        del at[last]
    else:
        at[last] = value
    return changed


def kind(value, path):
    """Return what a value is: bools are 0 and 1, ids may be text, and what is measured need not be whole."""
    if not isinstance(value, int | float) or path[-1:] == ("id",):
        return "name" if path[-1:] == ("id",) and isinstance(value, int | str) else type(value).__name__
    return "number" if MEASURED & set(path) or not float(value).is_integer() else "whole"


def meaning(config):
    """Return all that a reader makes of a data set, to compare; None where it refuses."""
    try:
        data = videos.read(config)
        videos.missing(data), data.misfits()
        masks = {e.name: decoded(e) for part in data.parts.values() for e in part}
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1500
        return None
    require_sense(data)
    labels = [
        (part, e.name, e.video, e.files, e.second, {k: v.tolist() for k, v in e.labels.items()}, masks[e.name])
        for part, examples in data.parts.items()
        for e in examples
    ]
    return data.class_names, data.scored, labels


def decoded(example):
    """Return the masks of an example as runs of bytes."""
    return [[code and np.packbits(rle.mask_of(code, example.name)).tobytes() for code in codes]
            for codes in example.masks]  # fmt: skip


def require_sense(data):
    """Refuse labels that no right file can have."""
    for example in (e for part in data.parts.values() for e in part):
        labels, classes = example.labels, len(data.class_names)
        assert all(np.isfinite(value).all() for value in labels.values())
        if labels["label"].dtype != bool:
            assert ((labels["label"] >= 0) & (labels["label"] < classes)).all()
        if "box" in labels:
            assert ((labels["box"] >= 0) & (labels["box"] <= 1)).all()
        if "segment" in labels:
            assert (labels["segment"][:, 0] >= 0).all() and (np.diff(labels["segment"]) > 0).all()
        assert example.second is None or np.isfinite(example.second)
        assert isinstance(example.name, str) and example.name and isinstance(example.video, str)


def draw_json(folder, count, seed):
    """Yield (file, content, path, old value, new value)."""
    rng = random.Random(seed)
    files = sorted(folder.rglob("*.json"))
    for _ in range(count):
        file = rng.choice(files)
        content = json.loads(file.read_text())
        path = rng.choice(list(places(content)))
        at = content
        for key in path:
            at = at[key]
        value = rng.choice([*ODD, MISSING] if path else ODD)
        yield file, content, path, at, value


def told_apart(file, content, path, config):
    """Return what is read of a file, with another value at a path, or without it."""

    def read(value):
        file.write_text(json.dumps(put(content, path, value)))
        return meaning(config)

    return read


@pytest.mark.parametrize("name", JSON)
def test_json(trees, name):
    config, folder = trees[name]
    right = meaning(config)
    assert right is not None
    for file, content, path, old, new in draw_json(folder, CHANGES, name):
        before, read = file.read_text(), told_apart(file, content, path, config)
        try:
            found = read(new)
            if found is None or found == right or new is MISSING or kind(new, path) == kind(old, path):
                continue
            absent = new is None and path and (path[-2:-1] == ("segmentations",) or found == read(MISSING))
            assert absent, f"{file.name} {path}: {str(old)[:40]!r} became {new!r}"
        finally:
            file.write_text(before)


@pytest.mark.parametrize("name", TEXT)
def test_text(trees, name):
    config, folder = trees[name]
    right, rng = meaning(config), random.Random(name)
    assert right is not None
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".csv", ".txt", ".pbtxt", ".bundle")]
    for _ in range(CHANGES):
        file = rng.choice(files)
        before = file.read_bytes()
        file.write_bytes(spoilt(before.decode(), rng).encode())
        meaning(config)
        file.write_bytes(before)


def spoilt(text, rng):
    """Return text with a word replaced, a line doubled or lost, or cut off."""
    lines = text.splitlines(keepends=True)
    if not lines or rng.random() < 0.2:
        return rng.choice([text[: len(text) // 2], text + text, "", "\n\n" + text, text + rng.choice(WORDS) + "\n"])
    at = rng.randrange(len(lines))
    separator = "," if "," in lines[at] else " "
    words = lines[at].split(separator)
    words[rng.randrange(len(words))] = rng.choice(WORDS)
    lines[at] = separator.join(words)
    return "".join(lines)
