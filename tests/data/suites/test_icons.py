"""The icon suite on a small division of real drawings, and the division's coverage by the plan of pictures."""

import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.icons import glyphs, icon_split, styles
from jax_promptmtl.data.preprocess import Preprocess
from jax_promptmtl.data.sampler import Order, batches
from jax_promptmtl.data.suites import icons

PARTS = {
    "line": {
        "bell": {"train": [["lucide:bell", "lucide:bell-ring"], ["lucide:bell-dot"]], "tune": [["lucide:bell-off"]],
                 "test": [["lucide:bell-plus"], ["lucide:bell-minus"]]},
        "cloud": {"train": [["lucide:cloud"]], "tune": [], "test": [["lucide:cloud-rain", "lucide:cloud-snow"]]},
    },
    "clip": {
        "bell": {"train": [["lucide:bell"]], "tune": [["lucide:bell-off"]], "test": [["lucide:bell-plus"]]},
        "cloud": {"train": [["lucide:cloud"]], "tune": [["lucide:cloud-sun"]], "test": [["lucide:cloud-rain"]]},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("icons"))


def suite(data_dir, **options):
    return icons.suite(PARTS, **({"shots": 6, "seed": 0, "evaluate_on": "test", "data_dir": data_dir} | options))


def glyph(name):
    return name.split("(")[1].rstrip(")")


def test_shapes_names_and_counts(data_dir):
    built = suite(data_dir)
    assert [(t.name, t.class_names, len(t.train), len(t.test)) for t in built.tasks] == [
        ("line", ("bell", "cloud"), 12, 24),
        ("clip", ("bell", "cloud"), 12, 24),
    ]
    for task in built.tasks:
        for source in (task.train, task.test):
            assert Counter(source.labels.tolist()) == {0: len(source) // 2, 1: len(source) // 2}
            assert source[0]["image"].shape == (48, 48, 3) and source[0]["image"].dtype == np.uint8
            for name, label in zip(source.names, source.labels, strict=True):
                assert name.split("/")[:2] == [task.name, task.class_names[label]]


def test_pictures_are_those_of_the_renderer(data_dir):
    source = suite(data_dir).tasks[1].test
    for i in (0, len(source) - 1):
        mask = glyphs.render_keys([glyph(source.names[i])])[0]
        key = source.names[i].split(" ")[0]
        expected = styles.render(mask, "clip", icons.fewshot.generator(key))
        np.testing.assert_array_equal(source[i]["image"], expected)


def test_train_tune_and_test_never_share_a_drawing(data_dir):
    for evaluate_on, learnt in (("test", ("train", "tune")), ("tune", ("train",))):
        for task in suite(data_dir, shots=99, evaluate_on=evaluate_on).tasks:
            allowed = {g for c in PARTS[task.name].values() for part in learnt for group in c[part] for g in group}
            held_out = {g for c in PARTS[task.name].values() for group in c[evaluate_on] for g in group}
            assert {glyph(n) for n in task.train.names} == allowed
            assert {glyph(n) for n in task.test.names} == held_out
            assert not allowed & held_out


def test_shots_are_nested_show_all_groups_and_the_test_set_stays(data_dir):
    built = {shots: suite(data_dir, shots=shots) for shots in (1, 3, 6, 12)}
    for small, large in itertools.pairwise(built):
        for a, b in zip(built[small].tasks, built[large].tasks, strict=True):
            assert set(a.train.names) < set(b.train.names) and a.test.names == b.test.names
    bells = {glyph(n) for n in built[3].tasks[0].train.names if "/bell/" in n}
    assert "lucide:bell-off" in bells and "lucide:bell-dot" in bells and len(bells) == 3  # its three groups
    assert len({s.split_hash for s in built.values()}) == 4
    assert suite(data_dir, seed=1).split_hash != built[6].split_hash == suite(data_dir).split_hash


def test_is_prepared_once(data_dir, capsys):
    suite(data_dir)
    assert "Rendering" not in capsys.readouterr().out


def test_feeds_the_sampler(data_dir):
    stream = batches(suite(data_dir), Preprocess(48), Order(8, 0, "stratified"))
    batch = next(stream)
    assert batch["image"].shape == (8, 48, 48, 3) and np.bincount(batch["task"]).tolist() == [4, 4]


def test_a_drawing_that_no_font_has_is_one_sentence(tmp_path):
    parts = {"line": {"bell": {"train": [["lucide:no-such-bell"]], "tune": [], "test": []}}}
    with pytest.raises(UserError, match="has no glyph 'lucide:no-such-bell'"):
        icons.suite(parts, shots=1, seed=0, evaluate_on="test", data_dir=str(tmp_path))
    assert not list(tmp_path.rglob("*.array_record*"))  # nothing half-made is left


def test_the_committed_plan_shows_every_group_and_is_balanced():
    parts = icon_split.read()
    for part, renders in icons.RENDERS.items():
        shown = defaultdict(Counter)
        for row in icons.schedule(parts, part):
            shown[row["style"], row["class"]][row["group"]] += 1
        for style, classes in parts.items():
            for name, groups in classes.items():
                counts = shown[style, name]
                assert sum(counts.values()) == (renders if groups[part] else 0)
                assert set(counts) == {min_group[0] for min_group in groups[part][:renders]}
                assert not counts or max(counts.values()) - min(counts.values()) <= 1


def test_fingerprint_follows_the_split():
    changed = {"line": PARTS["line"]}
    assert icons.fingerprint(PARTS) == icons.fingerprint(dict(PARTS)) != icons.fingerprint(changed)
