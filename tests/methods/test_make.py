"""Methods by name: those of the table, and classes outside the package, as docs/methods.md shows them."""

import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.video_batches import Clips, all_batches
from jax_promptmtl.methods import METHODS
from jax_promptmtl.methods.make import make_method
from jax_promptmtl.models.video.view import View
from jax_promptmtl.problems import video_mtl
from jax_promptmtl.problems.video_tasks import SPECS
from tests.problems.test_video_mtl import vit

SIZES = {"towers": {"text": (3, 8), "image": (2, 12)}, "embed_dim": 12}
DOCS = pathlib.Path(__file__).parents[2] / "docs" / "methods.md"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Put the example of the documentation where Python finds it."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    (tmp_path / "my_prompts.py").write_text(code + "\nclass Plain:\n    pass\n")
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_prompts", raising=False)


def test_constructors_get_the_sizes_that_they_declare():
    maple = make_method(ConfigDict({"name": "maple", "length": 2, "depth": 2}), SIZES)
    assert type(maple) is METHODS["maple"] and dict(maple.towers) == SIZES["towers"] and not hasattr(maple, "embed_dim")
    adapter = make_method({"name": "adapter", "side": "both"}, SIZES)
    assert adapter.embed_dim == 12 and not hasattr(adapter, "towers")


@pytest.mark.parametrize("option", ["towers", "embed_dim", "parent", "dept"])
def test_sizes_are_no_options(option):
    with pytest.raises(UserError, match=f"Unknown option of the method 'maple' {option!r}; legal values: depth,"):
        make_method({"name": "maple", option: 2}, SIZES)


def test_an_option_that_is_lacking_is_named():
    with pytest.raises(UserError, match=r"The method 'maple' needs the option '(length|depth)'; set config\.method\."):
        make_method({"name": "maple"}, SIZES)


def test_a_method_outside_the_package_trains_on_images(own, build, batch):
    problem = build({"name": "my_prompts:ImagePrompts", "length": 3}, {"image": "task"})
    ((path, leaf),) = tree.flatten(problem.params["method"]).items()
    assert path == "image" and leaf.shape == (3, 3, 24)  # tasks, tokens, width
    loss = lambda params: problem.loss(problem.expand(params), problem.frozen, batch, None)[0]  # noqa: E731
    assert np.abs(jax.grad(loss)(problem.params)["method"]["image"]).max() > 0


def test_a_method_outside_the_package_trains_on_videos(own):
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(3, 4, 8, 8, 1)).astype(np.float32)
    example = next(all_batches([Clips({"frames": frames, "label": np.arange(3)})], batch_size=3))
    primary, aux = (View(vit(seed), lambda batch: batch["frames"]) for seed in (0, 1))
    sizes = video_mtl.method_sizes(primary.backbone, {"one": aux.backbone})
    method = make_method({"name": "my_prompts:MeanPrompts"}, sizes)
    pipeline = video_mtl.Pipeline(primary, {"one": aux}, SPECS["recognition"].task, method)
    problem = video_mtl.build(pipeline, example=example)
    prompts = pipeline.prompts(problem.params["method"], problem.frozen["aux"], example)
    assert prompts.shape == (3, 1, primary.backbone.dim)
    state = aux.backbone.lower(aux.backbone.params, jnp.asarray(frames))
    weights = problem.params["method"]["one"]
    expected = np.asarray(state.tokens).mean(axis=1) @ np.asarray(weights["kernel"]) + np.asarray(weights["bias"])
    np.testing.assert_allclose(prompts[:, 0], expected, atol=1e-5)
    loss = lambda params: problem.loss(params, problem.frozen, example, None)[0]  # noqa: E731
    assert np.abs(jax.grad(loss)(problem.params)["method"]["one"]["kernel"]).max() > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere_at_all:X", r"Cannot import the method 'nowhere_at_all:X' \(ModuleNotFoundError: No module named"),
        ("my_prompts:Images", r"Cannot import the method 'my_prompts:Images' \(AttributeError: .*'Images'"),
        ("broken:X", r"Cannot import the method 'broken:X' \(ZeroDivisionError: division by zero\); give package"),
        (":X", "Cannot import the method ':X'"),
        ("my_prompts:Plain", "The method 'my_prompts:Plain' is no subclass of jax_promptmtl.methods.method.Method"),
        ("my_prompts:np", "Cannot import the method"),
        ("my_prompts:jnp", "is no subclass"),
        ("mmapp", "Unknown method 'mmapp'"),
    ],
)
def test_a_name_that_is_no_method_is_one_sentence(own, name, message):
    with pytest.raises(UserError, match=message):
        make_method({"name": name}, SIZES)


def test_options_of_a_method_outside_the_package_are_checked(own):
    with pytest.raises(UserError, match=r"Unknown option of the method 'my_prompts:ImagePrompts' 'lenght'.*'length'"):
        make_method({"name": "my_prompts:ImagePrompts", "lenght": 2}, SIZES)
