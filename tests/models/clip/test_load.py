"""The embedded CLIP: its size, its format, and that its card tells the truth."""

import pathlib
import re

import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.data import sampler, suites
from jax_promptmtl.data.preprocess import Preprocess
from jax_promptmtl.engine import step
from jax_promptmtl.models.clip.load import ASSETS, EMBEDDED, load
from jax_promptmtl.problems import clip_mtl

FOLDER = ASSETS / EMBEDDED


def card_accuracy(text):
    """Read the rows `| line | 576 | 12.3 |` of the card's accuracy table."""
    return {task: float(value) for task, value in re.findall(r"^\| (\w+) \| 576 \| ([\d.]+) \|", text, re.MULTILINE)}


def test_the_weights_are_small_and_loadable():
    backbone = load("icon_clip")
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 10 * 2**20
    assert backbone.preprocess == {"size": 48, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert all(np.isfinite(leaf).all() for leaf in tree.flatten(backbone.params).values())


def test_the_card_tells_sizes_and_hash():
    backbone, card = load("icon_clip"), (FOLDER / "README.md").read_text()
    assert f"{tree.count(backbone.params):,} parameters" in card and backbone.sha256 in card


def test_transformers_reads_the_same_model():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    backbone = load("icon_clip")
    reference = transformers.CLIPModel.from_pretrained(pathlib.Path(FOLDER), dtype=torch.float32)
    image = np.random.default_rng(0).normal(size=(2, 48, 48, 3)).astype(np.float32)
    tokens = backbone.tokenizer.tokenize(["bell", "truck", "star"], 8)
    ours = np.asarray(backbone.model.apply({"params": backbone.params}, image, tokens))
    with torch.no_grad():
        pixels = torch.from_numpy(image.transpose(0, 3, 1, 2).copy())
        theirs = reference(input_ids=torch.from_numpy(tokens).long(), pixel_values=pixels).logits_per_image.numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.exp(backbone.params["logit_scale"]))


@pytest.mark.slow
def test_the_card_tells_the_zero_shot_accuracy():
    suite, backbone = suites.build({"name": "icons"}), load("icon_clip")
    options = {"method": {"name": "none"}, "sharing": {}, "tune": (), "template": "{}", "seed": 0, "groups": [range(4)]}
    problem = clip_mtl.build(suite, backbone, clip_mtl.Options(**options))
    batches = sampler.evaluation_batches(suite, Preprocess(**backbone.preprocess), batch_size=64)
    measured = 100 * step.evaluate(problem, problem.params, problem.frozen, batches)["accuracy"]
    told = card_accuracy((FOLDER / "README.md").read_text())
    assert list(told) == [task.name for task in suite.tasks]
    np.testing.assert_allclose(list(told.values()), measured, atol=0.3)  # other machines round a few logits otherwise
