"""Mixup, cutmix and smoothing against their definition, written with loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.tasks import mixing, recognition
from jax_promptmtl.tasks.mixing import Mixing

CLASSES, SIDE = 5, 12


def batch(count=4, weight=None):
    frames = np.random.default_rng(0).integers(0, 255, (count, 2, SIDE, SIDE + 4, 3), np.uint8)
    label = np.arange(count) % CLASSES
    return {"frames": frames, "label": label, "weight": np.ones(count) if weight is None else np.array(weight)}


@pytest.fixture(scope="module")
def drawn():
    """Many draws of the kept shares; compiled once, for the Beta distribution takes seconds to compile."""
    options = Mixing(mixup=0.8, cutmix=1.0, chance=0.75)
    draw = jax.jit(jax.vmap(lambda key: mixing.kept(options, SIDE, SIDE + 4, key)))
    return np.asarray(draw(jax.random.split(jax.random.key(0), 3000)))


@pytest.fixture
def mixed(drawn, monkeypatch):
    """Return a function that mixes a batch with one of the draws: a mixup, or a cutmix with a box inside."""

    def run(options, given, number=0):
        fits = drawn.max((1, 2)) < 1 if options.mixup else (drawn.max((1, 2)) == 1) & (drawn.mean((1, 2)) < 0.8)
        monkeypatch.setattr(mixing, "kept", lambda *_: drawn[fits][number])
        return jax.device_get(mixing.mix(options, CLASSES, given, jax.random.key(0)))

    return run


def soft(label, smoothing):
    """timm's one_hot with an off value."""
    rows = np.full((len(label), CLASSES), smoothing / CLASSES)
    rows[np.arange(len(label)), label] = 1 - smoothing + smoothing / CLASSES
    return rows


def test_smoothing_alone_leaves_the_pixels(mixed):
    given = batch()
    found = mixed(Mixing(smoothing=0.1), given)
    np.testing.assert_allclose(found["target"], soft(given["label"], 0.1), rtol=1e-6)
    assert found["frames"].dtype == jnp.uint8 and (found["frames"] == given["frames"]).all()


@pytest.mark.parametrize("number", range(3))
def test_mixup_is_a_sum_of_a_clip_and_its_partner(mixed, number):
    given = batch()
    found = mixed(Mixing(mixup=0.8, smoothing=0.1), given, number)
    one, other = given["frames"].astype(float), given["frames"][::-1].astype(float)
    share = ((found["frames"] - other) * (one - other)).sum() / ((one - other) ** 2).sum()
    assert 0 < share < 1
    np.testing.assert_allclose(found["frames"], share * one + (1 - share) * other, atol=1e-2)
    target = soft(given["label"], 0.1)
    np.testing.assert_allclose(found["target"], share * target + (1 - share) * target[::-1], atol=1e-4)


@pytest.mark.parametrize("number", range(3))
def test_cutmix_pastes_one_box_of_the_partner_into_all_frames(mixed, number):
    given = batch()
    found = mixed(Mixing(cutmix=1.0), given, number)
    one, other = given["frames"], given["frames"][::-1]
    pasted = (found["frames"] == other).all((0, 1, 4))
    rows, columns = np.flatnonzero(pasted.any(1)), np.flatnonzero(pasted.any(0))
    assert pasted.sum() == len(rows) * len(columns) > 0
    np.testing.assert_array_equal(found["frames"], np.where(pasted[..., None], other, one))
    share = 1 - pasted.mean()  # corrected for what was cut off at the edge
    target = np.eye(CLASSES)[given["label"]]
    np.testing.assert_allclose(found["target"], share * target + (1 - share) * target[::-1], atol=1e-6)


def test_shares_and_boxes_have_their_distributions(drawn):
    mixup, area = drawn.max((1, 2)) < 1, 1 - drawn.mean((1, 2))
    assert mixup.mean() == pytest.approx(0.75 * 0.5, abs=0.03)  # the chance and the switch
    share = drawn[mixup].mean((1, 2))  # Beta(0.8, 0.8): mean 1 / 2, variance 1 / (4 (2 * 0.8 + 1))
    assert share.mean() == pytest.approx(0.5, abs=0.03) and share.var() == pytest.approx(1 / 10.4, abs=0.01)
    rng, boxes = np.random.default_rng(0), []
    for _ in range(20_000):  # timm's rand_bbox
        lam = rng.beta(1.0, 1.0)
        sides = []
        for size in (SIDE, SIDE + 4):
            half, centre = int(size * np.sqrt(1 - lam)) // 2, rng.integers(size)
            sides.append(np.clip(centre + half, 0, size) - np.clip(centre - half, 0, size))
        boxes.append(sides[0] * sides[1] / (SIDE * (SIDE + 4)))
    boxes, area = np.array(boxes), area[~mixup]
    assert (area > 0).mean() == pytest.approx((boxes > 0).mean() * 0.375 / 0.625, abs=0.04)
    area, boxes = area[area > 0], boxes[boxes > 0]
    assert area.mean() == pytest.approx(boxes.mean(), abs=0.02) and area.std() == pytest.approx(boxes.std(), abs=0.02)


def test_padding_is_mixed_with_nothing(mixed):
    given = batch(weight=[1, 1, 1, 0])
    found = mixed(Mixing(cutmix=1.0), given)
    np.testing.assert_array_equal(found["frames"][3], given["frames"][3])
    np.testing.assert_array_equal(found["frames"][1], given["frames"][1])  # in the middle of the three real ones
    changed = found["frames"][0] != given["frames"][0]
    assert changed.any() and (found["frames"][0] == given["frames"][2])[changed].all()


def test_the_soft_loss_of_hard_labels_is_the_hard_loss():
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(4, CLASSES)), jnp.float32)
    label = jnp.arange(4)
    hard, sums = recognition.loss(logits, {"label": label})
    found, same = recognition.soft_loss(logits, {"label": label, "target": jax.nn.one_hot(label, CLASSES)})
    np.testing.assert_allclose(found, hard, rtol=1e-6)
    np.testing.assert_array_equal(sums["correct"], same["correct"])
    target = np.random.default_rng(2).dirichlet(np.ones(CLASSES), 4)
    wanted = -(target * np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))).sum(1)
    found, _ = recognition.soft_loss(logits, {"label": label, "target": jnp.asarray(target)})
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
