"""Coverage, boxes and masks against slow or obvious answers."""

import numpy as np

from jax_promptmtl.data.icons.moving import frame, render


def cast(present, y, x, size, angle=0.0):
    shape = (*np.shape(present), 2)
    full = [np.broadcast_to(np.float32(v), shape).astype(np.float32) for v in (y, x, size, angle, 1.0)]
    return render.Cast(np.zeros(shape[:2], int), np.array(present), *full)


def square():
    levels = np.zeros((1, 3, 40, 40), np.float32)
    levels[..., 6:34, 6:34] = 1  # the long side of a drawing is 28 of 40 pixels
    return levels


def test_a_square_covers_its_size_at_its_place():
    coverage = render.cover(square(), cast([[True, False]], y=0.25, x=-0.25, size=0.5))
    assert coverage.shape == (1, 2, 2, 32, 32) and not coverage[0, 1].any()
    masks = render.solid(coverage)
    assert render.boxes(masks)[0, 0].tolist() == [[0.125, 0.375, 0.625, 0.875]] * 2  # centre (0.375, 0.625), side 0.5
    assert abs(coverage[0, 0, 0].sum() - 256) < 12 and not masks[0, 1].any()


def test_a_quarter_turn_swaps_width_and_height():
    levels = square()
    levels[..., :14, :] = levels[..., 26:, :] = 0  # 12 high, 28 wide
    flat = render.boxes(render.solid(render.cover(levels, cast([[True]], 0, 0, 0.5))))[0, 0, 0]
    tall = render.boxes(render.solid(render.cover(levels, cast([[True]], 0, 0, 0.5, np.pi / 2))))[0, 0, 0]
    assert flat[2] - flat[0] > 1.8 * (flat[3] - flat[1])
    assert np.allclose(tall, flat[[1, 0, 3, 2]], atol=1 / 32 + 1e-6)


def test_boxes_are_those_of_a_loop_over_pixels():
    rng = np.random.default_rng(0)
    masks = (rng.random((50, 32, 32)) < 0.004) & (np.arange(50) > 0)[:, None, None]
    for mask, box in zip(masks, render.boxes(masks), strict=True):
        places = [(x, y) for y in range(32) for x in range(32) if mask[y, x]]
        edges = [min(p[i] for p in places) for i in (0, 1)] if places else [0, 0]
        edges += [max(p[i] for p in places) + 1 for i in (0, 1)] if places else [0, 0]
        assert np.allclose(box * 32, edges)


def test_later_actors_hide_earlier_ones():
    rng = np.random.default_rng(1)
    masks = rng.random((4, 3, 2, 32, 32)) < 0.5
    seen = render.visible(masks)
    top = np.where(masks.any(1), 2 - masks[:, ::-1].argmax(1), -1)
    assert all(np.array_equal(seen[:, a], top == a) for a in range(3))


def test_paint_mixes_by_coverage_and_opacity():
    planes = np.full((1, 3, 2, 32, 32), 100, np.float32)
    coverage = np.zeros((1, 2, 32, 32), np.float32)
    coverage[..., 0] = 1
    render.paint(planes, coverage, np.float32([[200, 100, 0]]), np.float32([[1, 0.25]]))
    frames = frame.finish(planes)
    assert frames[0, 0, 5, 0].tolist() == [200, 100, 0] and frames[0, 1, 5, 0].tolist() == [125, 100, 75]
    assert frames[0, 0, 5, 1].tolist() == [100, 100, 100]
