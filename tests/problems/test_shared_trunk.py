"""Hard parameter sharing: the loss is the sum of the tasks' losses, the trunk gets all gradients, a head its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video import videomae
from jax_promptmtl.models.video.view import View
from jax_promptmtl.problems import shared_trunk
from jax_promptmtl.problems.video_tasks import SPECS

SIZES = {"a": 3, "b": 5}


def vit(seed, classes, width=8):
    config = videomae.VideoMaeConfig(
        2, 8, patch=4, channels=1, width=width, layers=2, heads=2, inner=16, classes=classes
    )
    params = jax.jit(videomae.VideoClassifier(config).init)(jax.random.key(seed), jnp.zeros((1, 2, 8, 8, 1)))["params"]
    return videomae.handle(f"vit_{seed}", config, params)


def problem_of(**options):
    views = {
        name: View(vit(i, SIZES[name], **options.get(name, {})), lambda batch: batch["frames"])
        for i, name in enumerate(SIZES)
    }
    return views, shared_trunk.build(
        views, dict.fromkeys(SIZES, SPECS["recognition"].task), private=("pool/.*",), about={}
    )


def batch_of(count=3):
    rng = np.random.default_rng(0)
    batch = {"weight": np.array([0.5, 0.25, 0.0], np.float32)}
    for name, classes in SIZES.items():
        batch[f"{name}/frames"] = rng.normal(size=(count, 2, 8, 8, 1)).astype(np.float32)
        batch[f"{name}/label"] = rng.integers(0, classes, count)
    return batch


def test_loss_sums_and_gradients_are_those_of_the_tasks_one_by_one():
    views, problem = problem_of()
    batch = batch_of()
    models = {name: shared_trunk.model_of(name, view.backbone, problem.params) for name, view in views.items()}
    a, b = (tree.flatten(models[name].params) for name in SIZES)
    assert all(a[path] is b[path] for path in a if path.startswith("trunk"))  # the first one's
    assert b["pool/head/kernel"].shape == (8, 5)

    def alone(name, params):
        model, label = (
            videomae.VideoClassifier(
                videomae.VideoMaeConfig(
                    2, 8, patch=4, channels=1, width=8, layers=2, heads=2, inner=16, classes=SIZES[name]
                )
            ),
            batch[f"{name}/label"],
        )
        chance = jax.nn.log_softmax(model.apply({"params": params}, batch[f"{name}/frames"]))
        each = -chance[jnp.arange(3), label]
        return (each * batch["weight"]).sum(), each

    (total, sums), grads = jax.jit(jax.value_and_grad(problem.loss, has_aux=True))(
        problem.params, problem.frozen, batch, None
    )
    found = {
        name: jax.value_and_grad(lambda p, name=name: alone(name, p), has_aux=True)(models[name].params)
        for name in SIZES
    }
    np.testing.assert_allclose(total, sum(value for (value, _), _ in found.values()), rtol=1e-5)
    np.testing.assert_allclose(sums["loss"], [float(each[:2].sum()) for (_, each), _ in found.values()], rtol=1e-5)
    assert sums["count"].tolist() == [2, 2]
    for path, grad in tree.flatten(grads["shared"]).items():
        if grad is not None:
            both = sum(tree.flatten(found[name][1])[path] for name in SIZES)
            np.testing.assert_allclose(grad, both, atol=1e-5, err_msg=path)
    for name in SIZES:
        own = tree.flatten(grads["private"][name])
        for path in ("pool/head/kernel", "pool/fc_norm/scale"):
            np.testing.assert_allclose(own[path], tree.flatten(found[name][1])[path], atol=1e-5)


def test_predictions_are_named_by_task():
    _, problem = problem_of()
    found = problem.predict(problem.params, problem.frozen, batch_of())
    assert {key: value.shape for key, value in found.items()} == {"a/score": (3, 3), "b/score": (3, 5)}


def test_trunks_of_two_sizes_are_one_sentence():
    with pytest.raises(UserError, match="The models of 'a' and 'b' cannot share a trunk: trunk/patch/bias has shape"):
        problem_of(b={"width": 16})
