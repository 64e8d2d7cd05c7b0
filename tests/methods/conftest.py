"""A random CLIP of three layers per tower, three tasks with class lists of their own, and a mixed-task batch."""

import re

import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.data.source import ArraySource, Suite, Task
from jax_promptmtl.models.clip import convert
from jax_promptmtl.models.clip.model import Backbone, ClipConfig
from jax_promptmtl.models.clip.tokenizer import Tokenizer
from jax_promptmtl.problems import clip_mtl

TOKENIZER = Tokenizer([])  # a letter is a token
CLASSES = (("a", "bd"), ("e f", "g", "a"), ("bd", "k"))
GROUPS = ((0, 2), (1,))


@pytest.fixture(scope="session")
def backbone():
    """Return the CLIP, all leaves away from 0 and 1."""
    sizes = ClipConfig(12, 8, 4, 24, 3, 2, 14, TOKENIZER.vocab_size, 16, 3, 2, "quick_gelu")
    rng, scales = np.random.default_rng(0), re.compile(r".*(/|_)scale")
    leaves = tree.flatten(convert.shapes(sizes)).items()
    draws = {path: rng.normal(bool(scales.fullmatch(path)), 0.2, leaf.shape) for path, leaf in leaves}
    params = tree.unflatten({path: draw.astype(np.float32) for path, draw in draws.items()})
    return Backbone("tiny", sizes, params, TOKENIZER, {"image_size": 8}, "0" * 64)


@pytest.fixture(scope="session")
def suite():
    """Return three tasks with eight training images each."""
    rng = np.random.default_rng(1)
    tasks = []
    for names in CLASSES:
        pictures = rng.integers(0, 255, (8, 8, 8, 3), np.uint8)
        source = ArraySource(pictures, np.arange(8) % len(names), [str(i) for i in range(8)])
        tasks.append(Task(f"task {len(tasks)}", names, source, source))
    return Suite("tiny", tuple(tasks), "hash")


@pytest.fixture(scope="session")
def build(suite, backbone):
    """Return (method, sharing) -> problem, of all tasks or of those given."""

    def build(method, sharing, tasks=suite.tasks):
        cut = Suite("tiny", tuple(tasks), "hash")
        groups = GROUPS if len(cut.tasks) == 3 else (tuple(range(len(cut.tasks))),)
        options = dict(method=method, sharing=sharing, tune=(), template="p {}.", seed=0, groups=groups)
        return clip_mtl.build(cut, backbone, clip_mtl.Options(**options))

    return build


@pytest.fixture(scope="session")
def batch():
    """Return six images of three tasks with weights of their own."""
    rng = np.random.default_rng(2)
    task = np.array([2, 0, 1, 1, 0, 2], np.int32)
    return {
        "image": rng.normal(size=(6, 8, 8, 3)).astype(np.float32),
        "label": np.array([rng.integers(len(CLASSES[t])) for t in task], np.int32),
        "task": task,
        "weight": rng.uniform(0.5, 1.5, 6).astype(np.float32),
    }
