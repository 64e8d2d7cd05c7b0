"""Mask losses and matching against Hugging Face's, brute force and scipy."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.tasks import mask_loss
from jax_promptmtl.tasks.matching import assign
from tests.weights import fast

Q, S, C, P = 6, 3, 4, 50


def image(seed=0):
    """Return logits [Q, C + 1], masks [Q, 5, 7], labels [S], truth [S, 20, 28] and points [P, 2] of an image."""
    rng = np.random.default_rng(seed)
    logits, masks = rng.standard_normal((Q, C + 1)), 3 * rng.standard_normal((Q, 5, 7))
    arrays = logits, masks, rng.integers(0, C, S), rng.random((S, 20, 28)) > 0.5, rng.random((P, 2))
    return [x.astype(np.float32) if x.dtype in (float, bool) else x for x in arrays]


def hugging_face(monkeypatch, places):
    """Return Hugging Face's loss and matcher, which look at the given points instead of random ones."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers.models.mask2former import modeling_mask2former as theirs

    weights = {"class_weight": 2.0, "mask_weight": 5.0, "dice_weight": 5.0}
    points = {"train_num_points": P, "oversample_ratio": 3.0, "importance_sample_ratio": 0.75}
    loss = theirs.Mask2FormerLoss(SimpleNamespace(num_labels=C, no_object_weight=0.1, **weights, **points), {})
    given = torch.tensor(places)[None]
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: given)
    repeated = lambda logits, *_: given.repeat(len(logits), 1, 1)  # noqa: E731
    monkeypatch.setattr(loss, "sample_points_using_uncertainty", repeated)
    return loss, torch


def centres(height, width):
    """Return x and y in [0, 1] of the centre of every cell, row by row."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)


@pytest.mark.parametrize("dense", [False, True])
def test_parity_with_transformers(monkeypatch, dense):
    logits, masks, label, truth, places = image()
    places = centres(5, 7) if dense else places
    theirs, torch = hugging_face(monkeypatch, places)
    as_torch = [torch.tensor(x)[None] for x in (masks, logits, truth, label)]
    wanted = theirs(*as_torch)
    wanted_query, wanted_instance = theirs.matcher(*as_torch)[0]

    def ours(logits, masks):
        at = lambda x: mask_loss.read(x, None if dense else jnp.broadcast_to(places, (len(x), P, 2)), (5, 7))  # noqa: E731
        one, counted = jnp.ones(len(places)), jnp.ones((1, S), bool)
        chosen = assign(mask_loss.pair_cost(logits, at(masks), label, at(truth), one), counted[0])
        entropy = mask_loss.class_loss(logits[None], label, chosen[None], counted, jnp.ones(1, bool))
        seen = mask_loss.mask_losses(at(masks[chosen])[None], at(truth)[None], one[None], counted)
        return chosen, mask_loss.Losses(entropy, *seen)

    chosen, found = fast(ours)(logits, jnp.asarray(masks))
    np.testing.assert_array_equal(chosen[wanted_instance.numpy()], wanted_query)
    np.testing.assert_allclose(found.entropy, wanted["loss_cross_entropy"], rtol=1e-5)
    np.testing.assert_allclose(found.mask, wanted["loss_mask"], rtol=1e-5)
    np.testing.assert_allclose(found.dice, wanted["loss_dice"], rtol=1e-5)
    np.testing.assert_allclose(found.total(), 2 * found.entropy + 5 * found.mask + 5 * found.dice, rtol=1e-6)


def test_more_instances_than_queries_are_refused():
    with pytest.raises(UserError, match="room for 3 objects and the model for 2"):
        assign(jnp.zeros((3, 2)), jnp.ones(3, bool))


def test_by_appearance_later_frames_choose_among_what_is_left():
    rng = np.random.default_rng(0)
    ours = fast(mask_loss.assign_by_appearance)
    for _ in range(10):
        cost, present = rng.standard_normal((4, 5, 6)).astype(np.float32), rng.random((4, 5)) > 0.5
        present[:, 4] = False
        wanted, free = {}, set(range(6))
        for frame in range(4):
            new = [s for s in range(5) if present[frame, s] and s not in wanted]
            left = sorted(free)
            rows, columns = linear_sum_assignment(cost[frame][np.ix_(new, left)])
            wanted |= {new[row]: left[column] for row, column in zip(rows, columns, strict=True)}
            free -= set(wanted.values())
        found = ours(cost, present)
        assert {s: int(found[s]) for s in wanted} == wanted


def test_released_matching_is_each_frame_for_itself():
    """Upstream's matcher keeps a list of used queries and never appends to it."""
    rng = np.random.default_rng(1)
    ours, repeated = fast(lambda c, p: mask_loss.assign_by_appearance(c, p, "released")), 0
    for _ in range(10):
        cost, present = rng.standard_normal((4, 5, 6)).astype(np.float32), rng.random((4, 5)) > 0.5
        wanted = {}
        for frame in range(4):
            new = [s for s in range(5) if present[frame, s] and s not in wanted]
            wanted |= dict(zip(new, linear_sum_assignment(cost[frame][new])[1], strict=True))
        found = ours(cost, present)
        assert {s: int(found[s]) for s in wanted} == wanted
        later = {
            s: any(wanted[t] == wanted[s] and present[:, t].argmax() > present[:, s].argmax() for t in wanted)
            for s in wanted
        }
        beaten = mask_loss.overtaken(found, jnp.asarray(present))
        assert {s: bool(beaten[s]) for s in wanted} == later
        repeated += any(later.values())
    assert repeated
    with pytest.raises(UserError, match="Unknown matching 'both'"):
        mask_loss.assign_by_appearance(jnp.zeros((1, 1, 2)), jnp.ones((1, 1), bool), "both")


def test_who_answers_for_nothing_is_no_object_of_little_weight():
    logits = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, C + 1)), jnp.float32)
    label, chosen = jnp.array([1, 2]), jnp.array([[2, 0], [1, 0]])
    counted, shown = jnp.array([[True, False], [True, True]]), jnp.array([True, True])
    chance = np.log(np.asarray(jax.nn.softmax(logits)))
    wanted = [[4, 4, 1], [2, 1, 4]]
    weight = [[0.1, 0.1, 1], [1, 1, 0.1]]
    entropy = [-weight[n][q] * chance[n, q, wanted[n][q]] for n in range(2) for q in range(3)]
    found = mask_loss.class_loss(logits, label, chosen, counted, shown)
    np.testing.assert_allclose(found, sum(entropy) / 3.3, rtol=1e-6)
    first = mask_loss.class_loss(
        logits, label, chosen, counted & jnp.array([[True], [False]]), jnp.array([True, False])
    )
    np.testing.assert_allclose(first, sum(entropy[:3]) / 1.2, rtol=1e-6)


def test_most_points_lie_where_a_mask_is_uncertain():
    masks = jnp.full((2, 8, 8), 9.0).at[:, :, :4].set(0.01)
    places = mask_loss.uncertain_points(jax.random.key(0), masks, 200)
    assert places.shape == (2, 200, 2) and (places >= 0).all() and (places <= 1).all()
    left = (places[..., 0] < 0.5).sum(axis=1)
    assert (left >= 150).all() and (left < 200).all()  # all of the certain share, half of the rest
    other = mask_loss.uncertain_points(jax.random.key(1), masks, 200)
    assert np.abs(other - places).max() > 0.1
