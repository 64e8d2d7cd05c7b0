"""A toy problem for the engine: three tasks in two slots, one trainable and one frozen layer, 3 classes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_promptmtl.core.problem import Problem

TASKS = ("a", "b", "c")
SLOTS = np.array([0, 1, 1])


def toy_problem(backbone="0" * 64):
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    params = {"method": {"prompt": draw(2, 4, 3)}, "backbone": {"blocks_0": {"kernel": draw(5, 4), "bias": None}}}
    frozen = {"method": {"prompt": None}, "backbone": {"blocks_0": {"kernel": None, "bias": draw(4)}}}
    mask = {"method": {"prompt": True}, "backbone": {"blocks_0": {"kernel": True, "bias": False}}}

    def expand(params):
        return {"method": {"prompt": params["method"]["prompt"][SLOTS]}, "backbone": params["backbone"]}

    def predict(per_task, frozen, batch):
        bias = frozen["backbone"]["blocks_0"]["bias"]
        hidden = jnp.tanh(batch["image"] @ per_task["backbone"]["blocks_0"]["kernel"] + bias)
        return jnp.einsum("b d, b d c -> b c", hidden, per_task["method"]["prompt"][batch["task"]])

    def loss(per_task, frozen, batch, rng):
        del rng
        logits = predict(per_task, frozen, batch)
        each = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        member = jax.nn.one_hot(batch["task"], 3) * (batch["weight"] > 0)[:, None]
        right = (logits.argmax(-1) == batch["label"]).astype(jnp.float32)
        sums = {
            "loss": jnp.where(member > 0, each[:, None], 0).sum(0),
            "correct": right @ member,
            "count": member.sum(0),
        }
        return (batch["weight"] * each).sum(), sums

    about = {"backbone": {"name": "toy", "sha256": backbone}, "classes": [["x", "y", "z"]] * 3}
    return Problem(TASKS, params, frozen, mask, expand, loss, lambda per_task, _: per_task, predict, about)


def toy_batch(step, size=18):
    """A pure function of the step."""
    rng = np.random.default_rng([7, step])
    return {
        "image": rng.normal(size=(size, 5)).astype(np.float32),
        "label": rng.integers(0, 3, size).astype(np.int32),
        "task": rng.integers(0, 3, size).astype(np.int32),
        "weight": np.full(size, 1 / size, np.float32),
    }


def toy_batches(start):
    while True:
        yield toy_batch(start)
        start += 1


def toy_config(**changes):
    optimizer = {"name": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4, "momentum": 0.9, "clip": None}
    optimizer |= {"schedule": "dassl_cosine", "warmup": 0.0, "b2": 0.99, "matrix_rms": 0.2}
    optimizer |= changes.pop("optimizer", {})
    config = {"seed": 0, "steps": 12, "steps_per_epoch": 3, "log_every": 4, "evaluate_every": 6, "checkpoint_every": 3}
    return config | {"parallel": "jit", "optimizer": optimizer} | changes


@pytest.fixture
def toy():
    """The functions of this file by name, for tests that a subprocess can share through `runpy`."""
    return {"problem": toy_problem, "batch": toy_batch, "batches": toy_batches, "config": toy_config}
