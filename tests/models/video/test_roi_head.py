"""RoIAlign against a loop over its definition, and the detector's halves."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video import roi_head
from jax_promptmtl.models.video.roi_head import RoiDetector
from jax_promptmtl.models.video.videomae import VideoMaeConfig

TINY = VideoMaeConfig(4, 24, patch=8, width=16, layers=2, heads=2, inner=32, classes=5)


def bilinear(plane, y, x):
    """Return one sample of [h, w, D]: zero beyond one cell outside, the border's value within that cell."""
    height, width = plane.shape[:2]
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(plane.shape[2])
    y, x = max(y, 0), max(x, 0)
    top, left = int(y), int(x)
    if top >= height - 1:
        top, y = height - 1, height - 1
    if left >= width - 1:
        left, x = width - 1, width - 1
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = plane[top, left] * (1 - dx) + plane[top, right] * dx
    lower = plane[bottom, left] * (1 - dx) + plane[bottom, right] * dx
    return upper * (1 - dy) + lower * dy


def align(plane, box, cells):
    """Return [cells, cells, D] of one box by the definition: adaptive sampling, not aligned."""
    x1, y1, x2, y2 = box
    side_x, side_y = max(x2 - x1, 1.0), max(y2 - y1, 1.0)
    across, down = math.ceil(side_x / cells), math.ceil(side_y / cells)
    out = np.zeros((cells, cells, plane.shape[2]))
    for i in range(cells):
        for j in range(cells):
            for a in range(down):
                for b in range(across):
                    y = y1 + (i + (a + 0.5) / down) * side_y / cells
                    x = x1 + (j + (b + 0.5) / across) * side_x / cells
                    out[i, j] += bilinear(plane, y, x) / (down * across)
    return out


@pytest.mark.parametrize("height, width, cells", [(14, 14, 7), (16, 23, 7), (3, 5, 2), (5, 3, 7)])
def test_roi_align_equals_the_loop(height, width, cells):
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((height, width, 3))
    corners = rng.uniform(0, 1, (40, 2, 2)) * [width, height]
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    boxes[0] = [0, 0, width, height]
    boxes[1] = [0.3, 0.4, 0.5, 0.6]  # smaller than a cell of the map
    boxes[2] = [width, height, width, height]  # a point at the far corner
    boxes[3] = [0, 0, 0, 0]
    boxes = boxes.astype(np.float32)
    ours = roi_head.roi_align(plane[None].astype(np.float32), boxes[None], cells)[0]
    expected = np.stack([align(plane, [float(v) for v in box], cells) for box in boxes])
    np.testing.assert_allclose(ours, expected, atol=2e-5)


@pytest.fixture(scope="module")
def model():
    """Return random parameters and inputs."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 1, (2, 3, 2, 2))
    boxes = np.concatenate([corners.min(2), corners.max(2)], axis=-1).astype(np.float32)
    inputs = {"video": rng.standard_normal((2, 4, 24, 24, 3), dtype=np.float32), "boxes": boxes}
    params = RoiDetector(TINY).init(jax.random.key(0), **inputs)["params"]
    keys = iter(jax.random.split(jax.random.key(1), 100))
    return jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape), params), inputs


def test_the_halves_are_the_whole_bit_for_bit(model):
    params, inputs = model
    handle = roi_head.handle("video", TINY, params)
    state = handle.lower(params, inputs)
    whole = RoiDetector(TINY).apply({"params": params}, **inputs)
    np.testing.assert_array_equal(handle.upper(params, state, None), whole)
    np.testing.assert_array_equal(handle.upper(params, state, jnp.zeros((2, 0, 16))), whole)


def test_drop_path_leaves_out_whole_branches(model):
    params, inputs = model
    handle = roi_head.handle("video", TINY, params)

    def outputs(keep):
        return handle.upper(params, handle.lower(params, inputs | {"keep": keep}), None)

    plain = handle.upper(params, handle.lower(params, inputs), None)
    np.testing.assert_array_equal(outputs(jnp.ones((2, 2, 2))), plain)
    found = outputs(jnp.ones((2, 2, 2)).at[1].set(0))  # no block changes the second clip
    np.testing.assert_array_equal(found[0], plain[0])
    bare = jax.tree.map(lambda leaf: leaf, params)
    for block in bare["trunk"]["transformer"].values():
        for last in (block["attn"]["out"], block["mlp"]["proj"]):
            last.update(jax.tree.map(jnp.zeros_like, last))
    np.testing.assert_allclose(found[1], handle.upper(bare, handle.lower(bare, inputs), None)[1], atol=1e-5)
    assert np.abs(found[1] - plain[1]).max() > 1e-3


def test_the_head_by_its_definition(model):
    params, inputs = model
    trunk = RoiDetector(TINY).apply({"params": params}, inputs["video"], 2, method="lower")
    tokens = np.asarray(trunk, np.float64)
    normal = (tokens - tokens.mean(-1, keepdims=True)) / np.sqrt(tokens.var(-1, keepdims=True) + 1e-6)
    head = jax.tree.map(np.asarray, params["roi"])
    maps = (normal * head["norm"]["scale"] + head["norm"]["bias"]).reshape(2, 2, 3, 3, 16).mean(1)
    cells = np.stack([[align(maps[b], inputs["boxes"][b, r] * 3.0, 7) for r in range(3)] for b in range(2)])
    expected = cells.max((2, 3)) @ head["head"]["kernel"] + head["head"]["bias"]
    np.testing.assert_allclose(RoiDetector(TINY).apply({"params": params}, **inputs), expected, atol=1e-4)


def test_prompts_count_but_their_order_does_not(model):
    params, inputs = model
    handle = roi_head.handle("video", TINY, params)
    state = handle.lower(params, inputs)
    prompts = jax.random.normal(jax.random.key(2), (2, 5, 16))
    out = handle.upper(params, state, prompts)
    np.testing.assert_allclose(handle.upper(params, state, prompts[:, ::-1]), out, atol=1e-4)
    assert np.abs(out - handle.upper(params, state, None)).max() > 1e-3


def test_padded_boxes_have_no_influence(model):
    params, inputs = model
    handle = roi_head.handle("video", TINY, params)
    junk = np.concatenate([inputs["boxes"], np.full((2, 4, 4), 7.0, np.float32)], axis=1)
    long = handle.upper(params, handle.lower(params, inputs | {"boxes": junk}), None)
    short = handle.upper(params, handle.lower(params, inputs), None)
    np.testing.assert_allclose(long[:, :3], short, atol=1e-6)


def test_a_detector_starts_from_a_classifier(model):
    params, inputs = model
    classifier = {"trunk": params["trunk"], "pool": {"fc_norm": params["roi"]["norm"], "head": {}}}
    again = roi_head.from_classifier(classifier, params["roi"]["head"])
    whole = RoiDetector(TINY).apply({"params": again}, **inputs)
    np.testing.assert_array_equal(whole, RoiDetector(TINY).apply({"params": params}, **inputs))


def test_an_auxiliary_needs_no_boxes(model):
    params, inputs = model
    handle = roi_head.handle("video", TINY, params)
    state = handle.lower(params, inputs | {"boxes": np.zeros((2, 0, 4), np.float32)})
    np.testing.assert_array_equal(state.tokens, handle.lower(params, inputs).tokens)


def test_clips_that_are_not_square(model):
    params, inputs = model
    handle = roi_head.handle("video", TINY, params, grid=(2, 4, 5))
    video = np.zeros((2, 4, 32, 40, 3), np.float32)
    assert handle.upper(params, handle.lower(params, inputs | {"video": video}), None).shape == (2, 3, 5)
    with pytest.raises(UserError, match=r"\(2, 3, 3\).* not \(2, 4, 5\)"):
        handle.lower(params, inputs)
    with pytest.raises(UserError, match="Boxes have the shape"):
        handle.lower(params, {"video": video, "boxes": np.zeros((2, 3, 5))})
