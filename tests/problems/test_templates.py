"""Class texts: ensembles against their definition, templates and names that cannot work."""

import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.source import Suite, Task
from jax_promptmtl.models.clip import convert
from jax_promptmtl.models.clip.model import Backbone, ClipConfig
from jax_promptmtl.models.clip.tokenizer import Tokenizer
from jax_promptmtl.problems import clip_mtl, templates
from tests.tiny import FAST

TOKENIZER = Tokenizer([])
SIZES = ClipConfig(16, 8, 4, 64, 2, 1, 24, TOKENIZER.vocab_size, 64, 2, 1, "gelu")
CLASSES = (("a", "bd"), ("e f", "g_h", "a"))
METHODS = {
    "none": ({"name": "none"}, {}),
    "text": ({"name": "tokens", "std": 1.0, "length": {"text": 3}, "depth": {"text": 2}}, {"text": "task"}),
}


@pytest.fixture(scope="module")
def backbone():
    rng, scales = np.random.default_rng(0), re.compile(r".*(/|_)scale")
    draw = lambda path, leaf: rng.normal(bool(scales.fullmatch(path)), 0.2, leaf.shape).astype(np.float32)  # noqa: E731
    params = tree.unflatten({path: draw(path, leaf) for path, leaf in tree.flatten(convert.shapes(SIZES)).items()})
    return Backbone("tiny", SIZES, params, TOKENIZER, {"size": 8}, "0" * 64)


def suite(*classes):
    return Suite("tiny", tuple(Task(f"t{i}", names, (), ()) for i, names in enumerate(classes or CLASSES)), "hash")


def class_features(backbone, method, template):
    kind, sharing = METHODS[method]
    options = {"method": kind, "sharing": sharing, "tune": (), "seed": 0, "groups": [[0, 1]]}
    problem = clip_mtl.build(suite(), backbone, clip_mtl.Options(template=template, **options))
    prepare = jax.jit(lambda p, f: problem.prepare(problem.expand(p), f), compiler_options=FAST)
    return np.asarray(prepare(problem.params, problem.frozen).classes)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("method", METHODS)
def test_an_ensemble_is_the_mean_of_the_unit_features(backbone, method):
    patterns = ["p {}.", "{}", "q {} r"]
    alone = [unit(class_features(backbone, method, pattern)) for pattern in patterns]
    for row, names in enumerate(CLASSES):
        found = class_features(backbone, method, patterns)[row, : len(names)]
        np.testing.assert_allclose(found, np.mean([x[row, : len(names)] for x in alone], 0), atol=1e-5)
        own = {"t0": patterns[:2], "t1": {"e f": patterns, "g_h": "p {}.", "a": ["q {} r", "{}"]}}
        found = class_features(backbone, method, own)[row]
        take = [[0, 1]] * 2 if row == 0 else [[0, 1, 2], [0], [2, 1]]
        for label, which in enumerate(take):
            np.testing.assert_allclose(found[label], np.mean([alone[i][row, label] for i in which], 0), atol=1e-5)


def test_one_template_in_a_list_is_that_template(backbone):
    for method in METHODS:
        one, listed = (class_features(backbone, method, template) for template in ("p {}.", ["p {}."]))
        np.testing.assert_array_equal(one, listed)


def test_templates_are_resolved(tmp_path):
    assert templates.resolve("a {}.") == "a {}."
    assert templates.resolve(("a {}.", "{}")) == ["a {}.", "{}"]
    assert templates.resolve(ConfigDict({"t0": ("{}",), "t1": "b {}"})) == {"t0": ["{}"], "t1": "b {}"}
    eighty = templates.resolve("imagenet80")
    assert len(set(eighty)) == 80 and "a photo of a {}." in eighty and "itap of my {}." in eighty
    (tmp_path / "a.txt").write_text("a {}.\n\n{}\n")
    assert templates.resolve(str(tmp_path / "a.txt")) == ["a {}.", "{}"]
    (tmp_path / "a.json").write_text(json.dumps({"t0": "a {}", "t1": {"x": ["{}"]}}))
    assert templates.resolve(str(tmp_path / "a.json")) == {"t0": "a {}", "t1": {"x": ["{}"]}}


@pytest.mark.parametrize(
    "template",
    [
        "a photo",
        "{} of {}",
        "{name}",
        "{0}",
        "{:>300000000}",
        "{!r}",
        "{",
        "{}}",
        [],
        ["{}", "cat"],
        {},
        {"t": []},
        3,
        None,
    ],
)
def test_what_is_no_template_is_refused(template):
    with pytest.raises(UserError, match=r"exactly one \{\}"):
        templates.resolve(template)


def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    for name, message in (("empty.txt", "are none"), ("nowhere.txt", "Cannot read"), ("nowhere.json", "nowhere.json")):
        with pytest.raises(UserError, match=message):
            templates.resolve(str(tmp_path / name))


def test_braces_in_names_are_letters(backbone):
    templates.require_apart(backbone, suite(("{x}", "{}")).tasks, "a {}.")


@pytest.mark.parametrize(
    "names, message",
    [
        (("alarm_clock", "cup", "alarm clock"), "'alarm_clock' and 'alarm clock' of task 't0' have the same text"),
        (("Bell", "bell"), "'Bell' and 'bell' .* the same text"),
        (("a  b", "a b"), "'a  b' and 'a b' .* the same text"),
        (("caf&eacute;", "café"), "the same text"),
        (("a", "a"), "'a' and 'a' .* the same text"),
        (("a", " "), "the name ' ', which says nothing"),
        (("a", "_"), "the name '_', which says nothing"),
        (("a", "b" * 60), "tokens; at most 24 fit"),
        ((), "has no classes"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(backbone, names, message):
    with pytest.raises(UserError, match=message):
        templates.require_apart(backbone, suite(names).tasks, "p {}")


def test_equal_names_in_two_tasks_are_fine(backbone):
    templates.require_apart(backbone, suite(("a", "b"), ("a", "b")).tasks, ["{}", "p {}"])


def test_a_class_or_task_without_a_template_is_named(backbone):
    task = SimpleNamespace(name="t0", class_names=("a", "b"))
    with pytest.raises(UserError, match="templates by task and none for 't0'"):
        templates.require_apart(backbone, [task], {"t1": "{}"})
    with pytest.raises(UserError, match="templates by class and none for 'b'"):
        templates.require_apart(backbone, [task], {"t0": {"a": "{}"}})
