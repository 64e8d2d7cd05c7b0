"""The tasks' losses, targets and decodings against loops written from their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.problems.video_tasks import SPECS
from jax_promptmtl.tasks import segmentation, spatial, temporal

RNG = np.random.default_rng(0)
GRID = np.array([[t, low, high, stride] for stride, low, high in ((1, 0, 4), (2, 4, 8)) for t in range(0, 16, stride)])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_recognition_measures_what_it_predicts():
    logits, label = jnp.asarray(RNG.normal(size=(7, 5))), jnp.asarray(RNG.integers(0, 5, 7))
    task = SPECS["recognition"].task
    losses, sums = task.loss(logits, {"label": label})
    wanted = [-np.log(np.exp(row[c]) / np.exp(row).sum()) for row, c in zip(np.asarray(logits), label, strict=True)]
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    predictions = jax.device_get(task.decode(logits, {"label": label}))
    top1 = task.measure(predictions, {"label": np.asarray(label)})["top1"]
    np.testing.assert_allclose(top1, 100 * np.mean(np.asarray(logits).argmax(1) == np.asarray(label)))
    np.testing.assert_allclose(100 * float(sums["correct"].mean()), top1, rtol=1e-6)


def test_spatial_loss_is_the_mean_over_classes_summed_over_boxes():
    logits = RNG.normal(size=(3, 4, 5))
    label, valid = RNG.integers(0, 5, (3, 4)), np.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
    wanted = np.zeros(3)
    for b in range(3):
        for r in range(4):
            chance = sigmoid(logits[b, r])
            right = np.eye(5)[label[b, r]]
            entropy = -(right * np.log(chance) + (1 - right) * np.log(1 - chance))
            wanted[b] += valid[b, r] * entropy.mean()
    batch = {"label": jnp.asarray(label), "valid": jnp.asarray(valid), "box": jnp.zeros((3, 4, 4))}
    losses, sums = spatial.loss(jnp.asarray(logits), batch)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    rows, _ = spatial.loss(jnp.asarray(logits), batch | {"label": jnp.asarray(np.eye(5, dtype=bool)[label])})
    np.testing.assert_allclose(rows, losses, rtol=1e-6)
    hits = [(logits[b].argmax(-1) == label[b])[valid[b]].mean() if valid[b].any() else 0 for b in range(3)]
    np.testing.assert_allclose(sums["correct"], hits, rtol=1e-6)
    assert not np.asarray(spatial.decode(jnp.asarray(logits), batch)["score"])[~valid].any()


def test_spatial_mean_loss_is_the_mean_over_all_boxes_of_the_batch():
    """AVA's: `binary_cross_entropy_with_logits` over the boxes of all clips together."""
    logits, label = RNG.normal(size=(4, 3, 5)), RNG.random((4, 3, 5)) > 0.7
    valid = np.array([[1, 0, 0], [1, 1, 1], [0, 0, 0], [1, 1, 0]], bool)
    entropy = np.logaddexp(0, logits) - label * logits
    given = {"label": jnp.asarray(label), "valid": valid, "weight": np.full(4, 0.25, np.float32)}
    batch = spatial.weigh_by_boxes(given)
    losses, sums = spatial.mean_loss(jnp.asarray(logits), {key: jnp.asarray(x) for key, x in batch.items()})
    np.testing.assert_allclose((batch["weight"] * losses).sum(), entropy[valid].mean(), rtol=1e-5)
    np.testing.assert_array_equal(sums["correct"], spatial.loss(jnp.asarray(logits), given)[1]["correct"])
    padded = spatial.weigh_by_boxes(given | {"weight": np.array([1, 1, 0, 0], np.float32)})["weight"]
    np.testing.assert_allclose(padded, [0.5, 1.5, 0, 0])
    nothing = spatial.weigh_by_boxes(given | {"valid": np.zeros((4, 3), bool)})
    assert nothing["weight"].sum() == 0 and nothing["weight"].dtype == np.float32


def test_spatial_measure_is_perfect_only_for_the_right_actions():
    label, valid = RNG.integers(0, 4, (20, 3)), np.ones((20, 3), bool)
    corner = RNG.uniform(0, 0.3, (20, 3, 2)) + np.arange(3)[None, :, None] * 0.34
    box = np.concatenate([corner, corner + 0.3], axis=-1)
    given = {"box": box, "valid": valid}
    right, wrong = np.eye(4)[label] * 0.8 + 0.1, np.eye(4)[(label + 1) % 4] * 0.8 + 0.1
    assert spatial.measure({"score": right} | given, {"label": label} | given)["map"] == 100
    assert spatial.measure({"score": wrong} | given, {"label": label} | given)["map"] < 50
    rows = np.eye(4, dtype=bool)[label]
    assert spatial.measure({"score": right} | given, {"label": rows} | given)["map"] == 100


def assign(segments, labels, valid, classes):
    """Give every point the shortest action that it answers for, point by point."""
    say, reach = np.zeros((len(GRID), classes)), np.zeros((len(GRID), 2))
    for p, (time, low, high, stride) in enumerate(GRID):
        best = np.inf
        for (start, end), label, real in zip(segments, labels, valid, strict=True):
            centre = (start + end) / 2
            near = max(start, centre - 1.5 * stride) < time < min(end, centre + 1.5 * stride)
            answers = low <= max(time - start, end - time) <= high
            if real and near and answers and end - start < best:
                best = end - start
                say[p] = np.eye(classes)[label]
                reach[p] = (time - start) / stride, (end - time) / stride
    return say, reach


def test_temporal_targets_and_loss_equal_loops_over_points():
    segment = np.array([[[1, 5], [6, 14], [0, 0]], [[2, 9], [3, 6.5], [8, 15]]], np.float32)
    label, valid = np.array([[0, 2, 0], [1, 3, 2]]), np.array([[1, 1, 0], [1, 1, 1]], bool)
    say, reach = temporal.targets(*map(jnp.asarray, (GRID, segment, label, valid)), 4)
    by_hand = [assign(s, c, v, 4) for s, c, v in zip(segment, label, valid, strict=True)]
    np.testing.assert_array_equal(say, [row[0] for row in by_hand])
    positive = np.asarray(say).any(-1)
    assert positive.sum(axis=1).min() >= 4
    np.testing.assert_allclose(np.asarray(reach)[positive], np.stack([r[1] for r in by_hand])[positive], rtol=1e-6)
    logits = RNG.normal(size=(2, len(GRID), 4)).astype(np.float32)
    offsets = RNG.uniform(0.1, 3, (2, len(GRID), 2)).astype(np.float32)
    mask = np.ones((2, len(GRID)), bool)
    mask[0, 12:16] = False
    wanted = np.zeros(2)
    for b in range(2):
        here = positive[b] & mask[b]
        for p in np.flatnonzero(mask[b]):
            chance, target = sigmoid(logits[b, p]), np.asarray(say)[b, p]
            right = np.where(target == 1, chance, 1 - chance)
            wanted[b] += (np.where(target == 1, 0.25, 0.75) * (1 - right) ** 2 * -np.log(right)).sum()
            if here[p]:
                (left, r), (gl, gr) = offsets[b, p], np.asarray(reach)[b, p]
                inter = max(0, min(r, gr) + min(left, gl))
                hull = max(r, gr) + max(left, gl)
                wanted[b] += 1 - inter / (left + r + gl + gr - inter) + (((r - left) - (gr - gl)) / 2 / hull) ** 2
        wanted[b] /= here.sum()
    points = temporal.Points(*map(jnp.asarray, (logits, offsets, mask, GRID)))
    batch = {"segment": jnp.asarray(segment), "label": jnp.asarray(label), "valid": jnp.asarray(valid)}
    np.testing.assert_allclose(temporal.loss(points, batch)[0], wanted, rtol=1e-5)


def test_points_that_say_their_targets_decode_to_the_truth():
    segment = np.array([[[1, 5], [6, 14], [0, 0]]], np.float32)
    label, valid = np.array([[0, 2, 0]]), np.array([[1, 1, 0]], bool)
    say, reach = temporal.targets(*map(jnp.asarray, (GRID, segment, label, valid)), 4)
    points = temporal.Points(20 * say - 10, reach, jnp.ones((1, len(GRID)), bool), jnp.asarray(GRID))
    found = jax.device_get(temporal.decode(points, {}))
    labels = {"segment": segment, "label": label, "valid": valid}
    assert temporal.measure(found, labels) == {"map": 100.0, "map@50": 100.0}
    late = {**found, "segment": found["segment"] + 4}
    assert temporal.measure(late, labels)["map"] < 50
    hidden = jax.device_get(temporal.decode(points._replace(mask=jnp.zeros((1, len(GRID)), bool)), {}))
    assert hidden["score"].max() == 0


def test_every_level_gives_its_own_most_probable_candidates():
    """Upstream takes 2,000 of every level; written out, level by level and class by class."""
    rng = np.random.default_rng(2)
    stride = np.repeat([1.0, 2.0, 4.0], [30, 15, 8])
    chance = rng.random((2, 53, 4)).astype(np.float32)
    chance[1, 10:40] = 0  # padding
    score, place = temporal.best_of_levels(jnp.asarray(chance), jnp.asarray(stride), 20)
    for b in range(2):
        wanted = []
        for level in (1, 2, 4):
            entries = [(chance[b, p, c], 4 * p + c) for p in np.flatnonzero(stride == level) for c in range(4)]
            wanted += sorted(entries, reverse=True)[:20]
        wanted = sorted((entry for entry in wanted if entry[0] > 0), reverse=True)
        real = np.asarray(score[b]) > 0
        np.testing.assert_allclose(np.stack([score[b][real], place[b][real]], axis=1), wanted, rtol=1e-6)
    every, places = temporal.best_of_levels(jnp.asarray(chance), jnp.asarray(stride), 212)
    np.testing.assert_array_equal(every, -np.sort(-chance.reshape(2, -1), axis=1))
    assert places.shape == (2, 212)


def test_a_video_with_many_actions_loses_none_before_suppression():
    """80 actions, each found by 24 candidates: 200 candidates in all would hold eight of them."""
    time = np.arange(1200.0)
    grid = np.stack([time, 0 * time, 0 * time + 4, 0 * time + 1], axis=1)
    centre = 15 * np.arange(80) + 7
    segment = np.stack([centre - 4, centre + 4], axis=1).astype(np.float32)
    near = np.abs(time[:, None] - centre).min(axis=1)
    rank = 0.001 * np.repeat(np.arange(80), 15)  # of early actions all candidates are before those of later ones
    logits = np.where(near < 4, 6 - rank, -9)[:, None].repeat(3, axis=1) - np.array([0, 0.5, 1])
    place = centre[np.abs(time[:, None] - centre).argmin(axis=1)]
    offsets = np.maximum(np.stack([time - place + 4, place + 4 - time], axis=1), 0)
    points = temporal.Points(
        *(jnp.asarray(x[None]) for x in (logits, offsets)), jnp.ones((1, 1200), bool), jnp.asarray(grid)
    )
    labels = {"segment": segment[None], "label": np.zeros((1, 80), int), "valid": np.ones((1, 80), bool)}
    assert temporal.measure(jax.device_get(temporal.decode(points, {})), labels)["map"] > 99


def test_suppression_keeps_other_classes_and_drops_what_is_empty():
    segment = np.array([[0, 4.0], [0, 4], [0, 4], [5, 5], [1, 9]])
    score, label = np.array([0.9, 0.8, 0.7, 0.99, 0.3]), np.array([0, 0, 1, 0, 0])
    nothing = np.zeros(5)
    found = temporal.suppress(np.stack([segment] * 2), np.stack([nothing, score]), np.stack([label] * 2))
    assert len(found[0][0]) == 0
    kept, scores, labels = found[1]
    less = np.exp(-((3 / 9) ** 2) / 0.5)  # of [0, 4] and [1, 9]: each lowers those after it
    by_hand = [0.9, 0.7, 0.3 * less, 0.8 * np.exp(-1 / 0.5) * less]
    assert len(kept) == 4
    np.testing.assert_allclose(scores, by_hand, rtol=1e-6)
    assert labels.tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("unknown", [0, 2])
def test_segmentation_loss_equals_a_loop_over_stages_and_frames(unknown):
    logits, label = RNG.normal(size=(3, 2, 6, 4)).astype(np.float32), RNG.integers(0, 4, (2, 6))
    if unknown:
        label[1, -unknown:] = -100
    log_p = np.asarray(jax.nn.log_softmax(logits))
    wanted = np.zeros(2)
    for b in range(2):
        frames = [t for t in range(6) if label[b, t] >= 0]
        for s in range(3):
            wanted[b] += np.mean([-log_p[s, b, t, label[b, t]] for t in frames])
            jumps = [np.minimum((log_p[s, b, t] - log_p[s, b, t - 1]) ** 2, 16).mean() for t in frames[1:]]
            wanted[b] += 0.15 * np.mean(jumps)
    losses, sums = segmentation.loss(jnp.asarray(logits), {"label": jnp.asarray(label)})
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    known = label >= 0
    found = logits[-1].argmax(-1)
    np.testing.assert_allclose(
        sums["correct"], [(f == t)[k].mean() for f, t, k in zip(found, label, known, strict=True)]
    )
    scores = segmentation.measure({"label": found}, {"label": label})
    np.testing.assert_allclose(scores["accuracy"], 100 * (found == label)[known].mean())


def test_the_smoothness_term_pulls_a_frame_to_the_one_before_and_not_back():
    logits = jnp.asarray(RNG.normal(size=(1, 1, 2, 3)).astype(np.float32))
    unknown = {"label": jnp.array([[0, 0]])}
    grad = jax.grad(lambda x: segmentation.loss(x, unknown)[0].sum())(logits)
    entropy = jax.grad(lambda x: -jax.nn.log_softmax(x)[0, 0, :, 0].mean())(logits)
    np.testing.assert_allclose(grad[0, 0, 0], entropy[0, 0, 0], atol=1e-6)
    assert float(jnp.abs(grad[0, 0, 1] - entropy[0, 0, 1]).max()) > 1e-3
