"""Matching against all permutations, the losses of boxes in closed form and against torch, and the measure."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.problems.video_tasks import SPECS
from jax_promptmtl.tasks import matching
from jax_promptmtl.tasks.boxes import centred, corners, generalised_iou
from jax_promptmtl.tasks.video_object import Boxes
from tests.weights import fast

TASK = SPECS["video_object"].task


def drawn_boxes(rng, *shape):
    """Return corners float32[..., 4] of boxes inside the frame."""
    low, high = np.sort(rng.uniform(0, 1, (2, *shape, 2)), axis=0)
    return np.concatenate([low, high], axis=-1).astype(np.float32)


def example(seed=0, clips=2, stages=2, keys=2, queries=5, slots=3, classes=4):
    """Return outputs and a batch with an empty slot, an empty frame and tracks' labels."""
    rng = np.random.default_rng(seed)
    shape = (clips, stages, keys, queries)
    logits = rng.standard_normal((*shape, classes)).astype(np.float32)
    outputs = Boxes(jnp.asarray(logits), centred(jnp.asarray(drawn_boxes(rng, *shape))))
    valid = np.ones((clips, keys, slots), bool)
    valid[0, 0, 1], valid[1, 1] = False, False
    box = drawn_boxes(rng, clips, keys, slots) * valid[..., None]
    return outputs, {"box": box, "label": rng.integers(0, classes, (clips, slots)), "valid": valid}


@pytest.mark.parametrize("slots, queries", [(1, 1), (3, 3), (3, 5), (4, 6)])
def test_assignments_are_the_best_of_all_permutations(slots, queries):
    rng = np.random.default_rng(slots)
    cost, valid = rng.standard_normal((20, slots, queries)), rng.uniform(size=(20, slots)) < 0.7
    cost[0], cost[1] = 0.0, np.round(cost[1])  # ties
    chosen = np.asarray(fast(matching.assign)(cost.astype(np.float32), valid))
    for row, real, found in zip(cost, valid, chosen, strict=True):
        assert len(set(found.tolist())) == slots and found.min() >= 0
        best = min(
            sum(row[s, q] for s, q in enumerate(order) if real[s])
            for order in itertools.permutations(range(queries), slots)
        )
        assert row[np.arange(slots), found][real].sum() == pytest.approx(best, abs=1e-5)


def test_generalised_iou_by_areas_and_against_torch_s_definition():
    rng = np.random.default_rng(0)
    left, right = drawn_boxes(rng, 50), drawn_boxes(rng, 50)
    expected = []
    for a, b in zip(left.astype(float), right.astype(float), strict=True):
        both = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
        union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
        hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
        expected.append(both / union - (hull - union) / hull)
    np.testing.assert_allclose(generalised_iou(left, right), expected, atol=1e-5)
    np.testing.assert_allclose(centred(corners(left)), left, atol=1e-6)
    flat = jnp.array([0.5, 0.5, 0.5, 0.5])
    assert jnp.isfinite(jax.grad(lambda x: generalised_iou(x, flat))(flat)).all()


def by_hand(outputs, batch, clip):
    """Return the loss of a clip: every stage and frame by itself, the best of all assignments."""
    logits, boxes = (np.asarray(x, np.float64)[clip] for x in outputs)
    total = 0.0
    for s, k in np.ndindex(logits.shape[:2]):
        real = np.flatnonzero(batch["valid"][clip, k])
        true, label = batch["box"][clip, k][real].astype(float), batch["label"][clip][real]
        middle = np.concatenate([(true[:, :2] + true[:, 2:]) / 2, true[:, 2:] - true[:, :2]], axis=1)
        chance = 1 / (1 + np.exp(-logits[s, k]))
        hit, miss = -0.25 * (1 - chance) ** 2 * np.log(chance), -0.75 * chance**2 * np.log(1 - chance)
        overlap = np.asarray(generalised_iou(corners(boxes[s, k][None]), true[:, None]))
        distance = np.abs(boxes[s, k][None] - middle[:, None]).sum(-1)

        def cost(r, q, hit=hit, miss=miss, label=label, distance=distance, overlap=overlap):
            return 2 * (hit - miss)[q, label[r]] + 5 * distance[r, q] - 2 * overlap[r, q]

        orders = itertools.permutations(range(logits.shape[2]), len(real))
        best = min(orders, key=lambda order: sum(cost(r, q) for r, q in enumerate(order)))
        each = miss.copy()
        for r, q in enumerate(best):
            each[q, label[r]] = hit[q, label[r]]
            total += 5 * distance[r, q] + 2 * (1 - overlap[r, q])
        total += 2 * each.sum()
    return total / max(batch["valid"][clip].sum(), 1)


def test_the_loss_is_that_of_the_best_assignment():
    outputs, batch = example()
    found, _ = fast(TASK.loss)(outputs, batch)
    np.testing.assert_allclose(found, [by_hand(outputs, batch, clip) for clip in range(2)], rtol=1e-4)


def test_the_loss_equals_that_of_transformers():
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("transformers.loss.loss_deformable_detr")
    outputs, batch = example()
    outputs = jax.tree.map(lambda x: x[:1, :1, :1], outputs)
    box = drawn_boxes(np.random.default_rng(3), 1, 1, 3)
    batch = {"box": box, "label": batch["label"][:1], "valid": np.ones((1, 1, 3), bool)}
    matcher = module.DeformableDetrHungarianMatcher(class_cost=2, bbox_cost=5, giou_cost=2)
    criterion = module.DeformableDetrImageLoss(
        matcher=matcher, num_classes=4, focal_alpha=0.25, losses=["labels", "boxes"]
    )
    logits, boxes = (torch.tensor(np.array(x[:, 0, 0])) for x in outputs)
    truth = {
        "class_labels": torch.tensor(batch["label"][0]),
        "boxes": torch.tensor(np.array(centred(batch["box"][0, 0]))),
    }
    parts = criterion({"logits": logits, "pred_boxes": boxes}, [truth])
    expected = 2 * parts["loss_ce"] + 5 * parts["loss_bbox"] + 2 * parts["loss_giou"]
    np.testing.assert_allclose(TASK.loss(outputs, batch)[0][0], float(expected), rtol=1e-4)


def test_clips_do_not_depend_on_each_other_and_empty_slots_on_nothing():
    outputs, batch = example()
    both, _ = TASK.loss(outputs, batch)
    alone, _ = TASK.loss(jax.tree.map(lambda x: x[:1], outputs), {key: x[:1] for key, x in batch.items()})
    np.testing.assert_allclose(both[0], alone[0], rtol=1e-6)
    junk = np.where(batch["valid"][..., None], batch["box"], 0.7)
    np.testing.assert_allclose(TASK.loss(outputs, {**batch, "box": junk})[0], both, rtol=1e-6)
    gradient = jax.grad(lambda o: TASK.loss(o, batch)[0].sum())(outputs)
    assert all(jnp.isfinite(leaf).all() for leaf in gradient)
    nothing = {**batch, "valid": np.zeros_like(batch["valid"])}
    assert jnp.isfinite(TASK.loss(outputs, nothing)[0]).all()


def test_what_is_right_scores_all_and_the_last_stage_counts():
    outputs, batch = example(classes=3)
    logits, boxes = (np.array(x) for x in outputs)
    logits[:, -1], boxes[:, -1, :, :3] = -9.0, centred(batch["box"])
    for clip, key, slot in np.argwhere(batch["valid"]):
        logits[clip, -1, key, slot, batch["label"][clip, slot]] = 9.0
    found = jax.device_get(fast(TASK.decode)(Boxes(logits, boxes), batch))
    assert found["box"].shape == (2, 2, 15, 4)
    assert TASK.measure(found, batch) == {"ap50": pytest.approx(100)}
    logits[:, -1] = logits[:, 0]
    worse = jax.device_get(TASK.decode(Boxes(logits, boxes), batch))
    assert TASK.measure(worse, batch)["ap50"] < 90
