"""Video instance segmentation: the losses of the three stages clip by clip and mask by mask, decoding, measures."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.models.layers import plane
from jax_promptmtl.tasks import instance
from jax_promptmtl.tasks.instance import Instances
from tests.weights import fast

K, B, L, Q, S, C = 2, 2, 3, 4, 2, 3
SHOWN = np.array([[True, True, True], [True, True, False]])
VALID = np.array([[True, True], [True, False]])


def batch(seed=0):
    """Return masks of which the first clip's second instance appears in its second frame, and labels."""
    rng = np.random.default_rng(seed)
    mask = rng.random((B, L, S, 8, 8)) > 0.5
    mask[0, 0, 1] = False
    return {"mask": mask, "label": rng.integers(0, C, (B, S)), "valid": VALID}


def outputs(seed=1):
    rng = np.random.default_rng(seed)
    shapes = ((K, B, L, Q, C + 1), (K, B, L, Q, 4, 4), (B, L, Q, C + 1), (B, L, Q, 4, 4))
    arrays = [2 * rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    return Instances(*arrays, SHOWN)


# --- the losses written out -------------------------------------------------------------------------------------------


def softmax(x):
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def entropy_and_dice(mask, truth):
    chance = 1 / (1 + np.exp(-mask.astype(float)))
    entropy = -(truth * np.log(chance) + (1 - truth) * np.log(1 - chance)).mean()
    return entropy, 1 - (2 * (chance * truth).sum() + 1) / (chance.sum() + truth.sum() + 1)


def pair(logits, mask, label, truth):
    entropy, dice = entropy_and_dice(mask, truth)
    return -2 * softmax(logits)[label] + 5 * entropy + 5 * dice


def best(costs, free):
    """Return instance -> query of least total cost; costs: {instance: [Q]}."""
    everyone = itertools.permutations(free, len(costs))
    who = min(everyone, key=lambda who: sum(cost[q] for cost, q in zip(costs.values(), who, strict=True)))
    return dict(zip(costs, who, strict=True))


def images(logits, masks, truth, present, stage):
    """Return what is compared: per image logits [Q, C + 1], masks [Q, P], truth [S, P], and the instances asked for."""
    if stage == "offline":
        flat = lambda x: np.moveaxis(x, 0, 1).reshape(x.shape[1], -1)  # noqa: E731
        return [(logits[0], flat(masks), flat(truth), [s for s in range(S) if present[:, s].any()])]
    flat = lambda x: x.reshape(len(x), -1)  # noqa: E731
    ever = [s for s in range(S) if present[:, s].any()]
    asked = [ever if stage == "online" else list(np.flatnonzero(row)) for row in present]
    return [(logits[i], flat(masks[i]), flat(truth[i]), asked[i]) for i in range(len(masks))]


def choose(rows, label, present, stage, matching="fixed"):
    """Return of every image {instance: query}."""
    chosen, free = {}, set(range(Q))
    result = []
    for i, (logits, masks, truth, asked) in enumerate(rows):
        new = asked if stage != "online" else [s for s in asked if present[i, s] and s not in chosen]
        costs = {s: [pair(logits[q], masks[q], label[s], truth[s]) for q in range(Q)] for s in new}
        found = best(costs, sorted(free if stage == "online" else range(Q)))
        chosen |= found
        free -= set(found.values()) if matching == "fixed" else set()
        result.append(found)
    return [chosen] * len(rows) if stage == "online" else result


def expected(b, said, data, stage, guided, matching="fixed"):
    """Return the loss of a clip."""
    frames, label = np.flatnonzero(SHOWN[b]), data["label"][b]
    truth = data["mask"][b, frames].astype(np.float32)
    present = truth.any((2, 3)) & data["valid"][b]
    small = np.asarray(plane.resize(jnp.asarray(truth), 4, 4))

    def rows(logits, masks):
        return images(logits[b][frames], masks[b][frames], small, present, stage)

    guide = said.guide_logits
    if stage == "offline":  # the tracker's, whose mean over the frames that are there says what an instance is
        guide = np.stack([np.broadcast_to(x[s].mean(axis=0), x.shape) for x, s in zip(guide, SHOWN, strict=True)])
    total, leader = 0.0, rows(guide, said.guide_masks)
    order = list(np.argsort(present.argmax(axis=0), kind="stable"))
    for k in range(len(said.logits)):
        own = rows(said.logits[k], said.masks[k])
        chosen = choose(leader if guided else own, label, present, stage, matching)
        nll, weights, parts = 0.0, 0.0, []
        for (logits, masks, target, asked), who in zip(own, chosen, strict=True):
            answer = {who[s]: s for s in sorted(asked, key=order.index)}  # of two, the later is learnt
            for q in range(Q):
                wanted, weight = (label[answer[q]], 1.0) if q in answer else (C, 0.1)
                nll -= weight * np.log(softmax(logits[q])[wanted])
                weights += weight
            parts += [entropy_and_dice(masks[who[s]], target[s]) for s in asked]
        entropy, dice = np.mean(parts, axis=0)
        total += 2 * nll / weights + 5 * entropy + 5 * dice
    return total


@pytest.mark.parametrize("stage, guided", [("minvis", False), ("online", True), ("offline", True)])
def test_losses_by_the_definition(stage, guided):
    said, data = outputs(), batch()
    found, _ = fast(lambda o, d: instance.loss(o, d, stage=stage, guided=guided))(said, data)
    np.testing.assert_allclose(found, [expected(b, said, data, stage, guided) for b in range(B)], rtol=1e-5)


@pytest.mark.parametrize("guided", [False, True])
def test_upstreams_matching_lets_a_later_instance_take_a_query_that_is_taken(guided):
    losses = {
        m: fast(lambda o, d, m=m: instance.loss(o, d, guided=guided, matching=m)[0]) for m in ("released", "fixed")
    }
    differ = 0
    for seed in range(6):
        said, data = outputs(seed), batch(seed)
        for matching, loss in losses.items():
            wanted = [expected(b, said, data, "online", guided, matching) for b in range(B)]
            np.testing.assert_allclose(loss(said, data), wanted, rtol=1e-5)
        differ += abs(losses["released"](said, data) - losses["fixed"](said, data)).max() > 1e-3
    assert differ


def test_the_joint_loss_adds_that_of_the_segmenter():
    said, data = outputs(), batch()
    found, _ = fast(instance.joint_loss)(said, data)
    below = said._replace(logits=said.guide_logits[None], masks=said.guide_masks[None])
    wanted = [expected(b, said, data, "online", False) + expected(b, below, data, "minvis", False) for b in range(B)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_padding_and_other_clips_have_no_influence_and_gradients_are_finite():
    said, data = outputs(), batch()

    def second(x, labels):
        return instance.loss(said._replace(logits=x[0], masks=x[1]), labels, stage="online")[0][1]

    logits, masks = said.logits.copy(), said.masks.copy()
    junk = data | {"mask": data["mask"].copy()}
    for x in (logits, masks):
        x[:, 1, 2] = 50.0
        x[:, 0] = 7.0
    junk["mask"][1, :, 1], junk["mask"][1, 2], junk["mask"][0] = True, True, True
    grad = fast(jax.grad(second))
    grads, same = grad((said.logits, said.masks), data), grad((logits, masks), junk)
    for one, other in zip(grads, same, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-6)
        assert np.isfinite(one).all() and not np.any(one[:, 0]) and not np.any(one[:, 1, 2])
        assert np.abs(one[:, 1, :2]).max() > 1e-3


@pytest.mark.slow
def test_points_are_those_of_a_clips_masks():
    said, data = outputs(), batch()
    loss = fast(lambda d: instance.loss(said, d, stage="online", points=64)[0])
    dense, _ = fast(lambda d: instance.loss(said, d, stage="online"))(data)
    other = data["mask"].copy()
    other[0, 0, 0, 0, 0] ^= True
    first, again, changed = loss(data), loss(data), loss(data | {"mask": other})
    np.testing.assert_array_equal(first, again)
    assert abs(first[0] - changed[0]) > 1e-3 and first[1] == changed[1]
    assert np.abs(first - dense).max() < 0.5 * np.abs(dense).max()


# --- decoding and measures --------------------------------------------------------------------------------------------


def test_decoding_takes_the_best_of_queries_and_classes():
    said = outputs()
    found = fast(instance.decode)(said, {})
    for b in range(B):
        frames = SHOWN[b]
        chance = softmax(said.logits[-1][b][frames].mean(axis=0))[:, :C]
        order = np.argsort(-chance.ravel())[:10]
        np.testing.assert_allclose(found["score"][b], chance.ravel()[order], rtol=1e-5)
        np.testing.assert_array_equal(found["label"][b], order % C)
        whole = plane.resize(jnp.asarray(said.masks[-1][b][:, order // C]), 16, 16) > 0
        np.testing.assert_array_equal(found["mask"][b], whole & frames[:, None, None, None])
    raised = fast(lambda o: instance.decode(o, {}, guided=True))(said)["score"]
    assert (raised >= found["score"] - 1e-6).all() and (raised > found["score"] + 1e-3).any()


def test_what_is_right_scores_a_hundred_and_padding_counts_nowhere():
    data = batch()
    right = {"mask": data["mask"], "label": data["label"], "score": np.array([[0.9, 0.8], [0.7, 0.0]])}
    score = instance.measure(right, data)
    assert score["map"] == score["ap50"] == score["ar10"] == 100
    label = data["label"].copy()
    label[0] = (label[0] + 1) % C
    assert instance.measure(right | {"label": label}, data)["map"] < 100
