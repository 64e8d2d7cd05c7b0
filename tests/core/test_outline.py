"""One screen for what holds arrays: shapes and counts, and no line or list that grows with the content."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core.outline import brief, outline
from jax_promptmtl.data.source import ArraySource, Suite, Task
from jax_promptmtl.engine import optim, step
from jax_promptmtl.inference.prediction import Prediction
from jax_promptmtl.models.clip.load import load
from jax_promptmtl.problems import clip_mtl

METHOD = {"name": "tokens", "std": 0.02, "length": {"image": 8}, "depth": {"image": 4}}


@dataclasses.dataclass
class Thing:
    one: Any
    two: Any = None
    __repr__ = outline


def source(count):
    images = np.zeros((count, 48, 48, 3), np.uint8)
    return ArraySource(images, np.zeros(count, int), tuple(f"picture {n}" for n in range(count)))


def make_suite(tasks=4, classes=48):
    names = tuple(f"class {n}" for n in range(classes))
    return Suite("demo", tuple(Task(f"task {n}", names, source(576), source(30)) for n in range(tasks)), "a" * 64)


@pytest.fixture(scope="module")
def backbone():
    return load("icon_clip")


def build(backbone, tune):
    options = {"method": METHOD, "sharing": {"image": "all"}, "template": "{}", "seed": 0, "groups": [[0, 1, 2, 3]]}
    return clip_mtl.build(make_suite(), backbone, clip_mtl.Options(tune=tune, **options))


def fits(text):
    lines = text.splitlines()
    return len(lines) <= 40 and max(map(len, lines)) <= 80


@pytest.mark.parametrize("tune", [(), (".*/bias",), (".*",)])
def test_a_problem_is_one_screen_with_shapes_and_counts(backbone, tune):
    problem = build(backbone, tune)
    text = repr(problem)
    assert fits(text)
    for name in ("params", "frozen"):
        leaves = [leaf for leaf in jax.tree.leaves(getattr(problem, name)) if hasattr(leaf, "shape")]
        numbers = sum(leaf.size for leaf in leaves)
        found = f"  {name}: {len(leaves)} array{'s' * (len(leaves) > 1)}, {numbers:,} number"
        assert found in text or not leaves
    assert "tasks: 4: 'task 0', 'task 1'" in text
    if not tune:
        assert "    method/image" in text and ": float32[1, 4, 8, 192]" in text
        assert "mask: 1 of 143 true" in text


def test_the_state_of_a_training_is_one_screen(backbone):
    problem = build(backbone, (".*",))
    config = {"name": "adamw", "learning_rate": 1e-3, "schedule": "constant", "weight_decay": 0.0, "momentum": 0.9}
    tx = optim.make(config | {"b2": 0.999, "clip": None}, mask=problem.mask, steps_per_epoch=1, total_steps=9)
    text = repr(step.initial(problem, tx))
    count = len(jax.tree.leaves(problem.params))
    assert fits(text) and f"params: {count} arrays" in text and f"opt: {2 * count + 2} arrays" in text
    shown = jax.jit(lambda state: state.replace(step=jnp.asarray(len(repr(state)))))(step.initial(problem, tx))
    assert shown.step > 100  # under jit too


def test_suites_tasks_and_sources_say_how_much_they_hold():
    suite = make_suite(tasks=100, classes=1000)
    assert fits(repr(suite)) and "tasks: 100" in repr(suite) and "... and 94 more" in repr(suite)
    assert "Task(name: 'task 0', class_names: 1,000, train: 576 x ArraySource" in repr(suite)
    assert "class_names: 1,000: 'class 0'" in repr(suite.tasks[0]) and "test: 30 x ArraySource" in repr(suite.tasks[0])
    assert "images: uint8[576, 48, 48, 3]" in repr(suite.tasks[0].train) and fits(repr(suite.tasks[0].train))


def test_backbones_and_predictions(backbone):
    assert fits(repr(backbone)) and "params: 142 arrays, 2,990,721 numbers" in repr(backbone)
    logits = np.zeros((500, 1000), np.float32)
    assert "logits: float32[500, 1000]" in repr(Prediction("t", tuple(map(str, range(1000))), logits))


@pytest.mark.parametrize(
    "value, text",
    [
        (np.float32(3), "float32[]"),
        (jax.ShapeDtypeStruct((2, 3), jnp.bfloat16), "bfloat16[2, 3]"),
        (jax.random.key(0), "key<fry>[]"),
        ({}, "{}"),
        ({"a": None}, "{a}"),
        ({"a": {"b": np.ones(3)}, "c": [np.ones((2, 2))], "d": None, "e": "x"}, "2 arrays, 7 numbers"),
        ([True, False], "2: True, False"),
        ({"a": True, "b": {"c": False}}, "1 of 2 true"),
        ([], "none"),
        ("a\nb", "'a b'"),
        (functools.partial(build, 3), "build()"),
        (lambda: 0, "<lambda>()"),
        (dict, "dict()"),
        (b"xyz", "3 x bytes"),
        (object(), "object"),
        (2.5, "2.5"),
        (Thing, "Thing()"),
        (Thing(1, "x"), "Thing(one: 1, two: 'x')"),
    ],
)
def test_values_in_one_line(value, text):
    assert brief(value) == text


def test_long_values_are_cut():
    text = repr(Thing("x" * 10_000, {f"key {n}": n for n in range(10_000)}))
    assert fits(text) and text.startswith("Thing(\n  one: 'xxx")
    assert fits(repr(Thing([Thing("y" * 500)] * 300, {"/".join("ab" * 90): np.ones(3)})))
