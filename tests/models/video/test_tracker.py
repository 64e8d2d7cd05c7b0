"""Tracker, refiner and MinVIS against the equations written out in NumPy, one video at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video import tracker
from jax_promptmtl.models.video.tracker import ReferringTracker, TemporalRefiner, TrackerConfig
from tests.weights import draw, fast

SIZES = {"width": 8, "heads": 2, "inner": 12, "layers": 2, "mask_width": 4, "classes": 3}
B, L, Q = 2, 4, 5
CONFIGS = {matching: TrackerConfig(**SIZES, matching=matching) for matching in tracker.MATCHINGS}
TRACK = {matching: fast(ReferringTracker(config).apply) for matching, config in CONFIGS.items()}


def inputs(frames=L):
    """Return queries [B, L, Q, 8], every frame's in an order of its own, and mask features [B, L, 3, 3, 4]."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((B, 1, Q, 8))
    queries = np.stack([[rng.permutation(video[0]) for _ in range(frames)] for video in base])
    queries += 0.3 * rng.standard_normal(queries.shape)
    return queries.astype(np.float32), rng.standard_normal((B, frames, 3, 3, 4)).astype(np.float32)


def doubles(params):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)


# --- the equations ----------------------------------------------------------------------------------------------------


def norm(w, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w["scale"] + w["bias"]


def affine(w, x):
    return x @ w["kernel"] + w["bias"]


def softmax(x, axis=-1):
    weights = np.exp(x - x.max(axis, keepdims=True))
    return weights / weights.sum(axis, keepdims=True)


def attend(w, stream, query, memory):
    """Return one post-norm attention layer, head by head: float[N, D], float[N, D], float[M, D]."""
    q, k, v = (affine(w["attn"][name], x) for name, x in (("query", query), ("key", memory), ("value", memory)))
    size = q.shape[1] // SIZES["heads"]
    parts = [slice(i, i + size) for i in range(0, q.shape[1], size)]
    mixed = [softmax(q[:, part] @ k[:, part].T / np.sqrt(size)) @ v[:, part] for part in parts]
    return norm(w["norm"], stream + affine(w["attn"]["out"], np.concatenate(mixed, 1)))


def feed(w, x):
    return norm(w["norm"], x + affine(w["proj"], np.maximum(affine(w["fc"], x), 0)))


def masks(w, normal, features):
    x = normal
    for i in range(3):
        x = affine(w["embed"][f"layers_{i}"], np.maximum(x, 0) if i else x)
    return np.einsum("...qm,...hwm->...qhw", x, features)


def matched(reference, current):
    """Return which current query each reference query gets."""
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (reference, current)]
    return linear_sum_assignment(1 - unit[0] @ unit[1].T)[1]


def tracked(params, queries, matching):
    """Return the instances of a video after every layer, float[K, L, Q, D]."""
    blocks = [params[f"blocks_{i}"] for i in range(SIZES["layers"])]
    frames, last, placed = [], None, None
    for frame in queries:
        if last is None:
            placed = frame
        else:
            order = matched(placed, frame)
            placed = frame[order if matching == "fixed" else np.argsort(order)]
        x, layers = placed, []
        for w in blocks:
            x = attend(w["cross"], x, x if last is None else last, frame)
            x = feed(w["feed"], attend(w["own"], x, x, x))
            layers.append(x)
        last = x
        frames.append(layers)
    return np.moveaxis(np.array(frames), 0, 1)


def convolved(w, x):
    """Return the convolution along time of float[L, D], whose first and last frame go on for ever."""
    reach = len(w["kernel"]) // 2
    held = np.concatenate([x[:1]] * reach + [x] + [x[-1:]] * reach)
    return np.array([sum(held[t + i] @ tap for i, tap in enumerate(w["kernel"])) for t in range(len(x))]) + w["bias"]


def refined(params, instances, frames):
    """Return the instances of a video after every layer, float[K, L, Q, D]."""
    x, layers = instances, []
    for i in range(SIZES["layers"]):
        w, columns = params[f"blocks_{i}"], []
        for q in range(x.shape[1]):
            line = attend(w["time"], x[:, q], x[:, q], x[:, q])
            short = convolved(w["narrow"], np.maximum(convolved(w["wide"], line), 0))
            columns.append(norm(w["norm"], line + short))
        x = np.stack(columns, 1)
        rows = []
        for row, frame in zip(x, frames, strict=True):
            row = attend(w["own"], row, row, row)
            rows.append(feed(w["feed"], attend(w["cross"], row, row, frame)))
        x = np.array(rows)
        layers.append(x)
    return np.array(layers)


# --- MinVIS -----------------------------------------------------------------------------------------------------------


def test_minvis_follows_queries_from_frame_to_frame():
    queries, _ = inputs()
    order = np.asarray(fast(tracker.follow)(queries))
    for video, found in zip(queries, order, strict=True):
        before, wanted = video[0], [np.arange(Q)]
        for frame in video[1:]:
            wanted.append(matched(before, frame))
            before = frame[wanted[-1]]
        np.testing.assert_array_equal(found, wanted)
    assert (order[:, 1:] != np.arange(Q)).any()
    aligned = tracker.reorder(jnp.asarray(queries), jnp.asarray(order))
    np.testing.assert_array_equal(aligned[1, 2], queries[1, 2][order[1, 2]])
    assert np.abs(aligned - aligned[:, :1]).mean() < 0.5 < np.abs(queries - queries[:, :1]).mean()


# --- online -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def params():
    return draw(ReferringTracker(CONFIGS["fixed"]), *inputs())


@pytest.mark.parametrize("matching", tracker.MATCHINGS)
def test_the_tracker_is_that_of_the_equations(params, matching):
    queries, features = inputs()
    found, _ = TRACK[matching]({"params": params}, queries, features)
    w = doubles(params)
    for b in range(B):
        layers = tracked(w, queries[b].astype(np.float64), matching)
        normal = norm(w["say"]["norm"], layers)
        np.testing.assert_allclose(found.queries[b], normal[-1], atol=1e-5)
        np.testing.assert_allclose(found.logits[:, b], affine(w["say"]["classify"], normal), atol=1e-5)
        np.testing.assert_allclose(found.masks[:, b], masks(w["say"], normal, features[b]), atol=2e-5)


def test_the_released_matching_is_the_inverse_of_the_fixed_one(params):
    base = np.random.default_rng(1).standard_normal((Q, 8)).astype(np.float32)
    turn = np.array([1, 2, 0, 4, 3])  # the second frame's query i is the first's turn[i]
    queries, features = np.stack([[base, base[turn], base, base]] * B), inputs()[1]
    fixed, released = (TRACK[kind]({"params": params}, queries, features)[1] for kind in ("fixed", "released"))
    np.testing.assert_array_equal(fixed[0, 1], np.argsort(turn))
    np.testing.assert_array_equal(released[0, 1], turn)
    np.testing.assert_array_equal(queries[0, 1][fixed[0, 1]], base)
    with pytest.raises(UserError, match="matching of the tracker"):
        TrackerConfig(matching="right")


def test_later_frames_do_not_change_earlier_ones_and_one_frame_is_enough(params):
    queries, features = inputs()
    model, other = ReferringTracker(CONFIGS["released"]), queries.copy()
    other[:, 2:] = 5.0
    whole, _ = TRACK["released"]({"params": params}, queries, features)
    changed, _ = TRACK["released"]({"params": params}, other, features)
    np.testing.assert_array_equal(changed.masks[:, :, :2], whole.masks[:, :, :2])
    assert np.abs(changed.masks[:, :, 2:] - whole.masks[:, :, 2:]).max() > 1e-2
    short, order = jax.eval_shape(model.apply, {"params": params}, queries[:, :1], features[:, :1])
    assert short.masks.shape == (2, B, 1, Q, 3, 3) and order.shape == (B, 1, Q)
    alone = fast(lambda p, x: model.apply({"params": p}, x, method="alone"))(params, queries)
    np.testing.assert_allclose(alone[:, 0], whole.queries[:, 0], atol=1e-5)
    assert np.abs(alone[:, 1] - whole.queries[:, 1]).max() > 1e-2


# --- offline ----------------------------------------------------------------------------------------------------------


def test_the_refiner_is_that_of_the_equations_and_padding_has_no_influence():
    (queries, features), frames = inputs(), inputs()[0][:, ::-1].copy()
    model, lengths = TemporalRefiner(CONFIGS["fixed"]), (L, 2)
    valid = np.arange(L) < np.array(lengths)[:, None]
    for x in (queries, frames, features):
        x[~valid] = 7.0
    params = draw(model, queries, frames, features, valid)
    found = fast(model.apply)({"params": params}, queries, frames, features, valid)
    w = doubles(params)
    for b, length in enumerate(lengths):
        layers = refined(w, queries[b, :length].astype(np.float64), frames[b, :length].astype(np.float64))
        normal = norm(w["say"]["norm"], layers)
        share = softmax(affine(w["weigh"], normal), axis=1)
        logits = affine(w["say"]["classify"], (share * normal).sum(1, keepdims=True))
        np.testing.assert_allclose(found.queries[b, :length], normal[-1], atol=1e-5)
        np.testing.assert_allclose(found.logits[:, b, :length], np.repeat(logits, length, 1), atol=1e-5)
        wanted = masks(w["say"], normal, features[b, :length])
        np.testing.assert_allclose(found.masks[:, b, :length], wanted, atol=2e-5)
        assert np.ptp(logits) > 0.1


def test_sizes_are_those_of_the_published_models():
    x, features, valid = np.zeros((1, 2, 3, 256)), np.zeros((1, 2, 4, 4, 256)), np.ones((1, 2), bool)
    online = jax.eval_shape(ReferringTracker(TrackerConfig()).init, jax.random.key(0), x, features)["params"]
    offline = jax.eval_shape(TemporalRefiner(TrackerConfig()).init, jax.random.key(0), x, x, features, valid)["params"]
    assert tree.count(online) == 9_680_937  # 9.68 M
    assert tree.count(offline) == 14_415_146  # 14.42 M
