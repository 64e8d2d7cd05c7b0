"""Sinusoidal positions and their resizing, against torch."""

import numpy as np
import pytest

from jax_promptmtl.models.layers import position


@pytest.mark.parametrize("source, target", [(8, 8), (8, 4), (8, 11), (3, 16), (1, 3)])
@pytest.mark.parametrize("cubic", [True, False])
def test_resampling_equals_torch(source, target, cubic):
    torch = pytest.importorskip("torch")
    line = np.random.default_rng(0).standard_normal(source)
    if cubic:
        image = torch.tensor(line)[None, None, None].expand(1, 1, 2, source)
        options = dict(size=(2, target), mode="bicubic", align_corners=False)
        expected = torch.nn.functional.interpolate(image, **options)[0, 0, 0]
    else:
        options = dict(size=target, mode="linear", align_corners=False)
        expected = torch.nn.functional.interpolate(torch.tensor(line)[None, None], **options)[0, 0]
    ours = position.resampling(source, target, cubic) @ line
    np.testing.assert_allclose(ours, expected.numpy(), atol=1e-12)


def test_resized_grid_equals_torch_frame_by_frame_then_along_time():
    torch = pytest.importorskip("torch")
    interpolate = torch.nn.functional.interpolate
    table = torch.tensor(position.sinusoid(2 * 3 * 3, 8)).double().reshape(2, 3, 3, 8)
    frames = interpolate(table.permute(0, 3, 1, 2), size=(5, 4), mode="bicubic", align_corners=False)
    line = frames.permute(2, 3, 1, 0).reshape(20, 8, 2)
    expected = interpolate(line, size=3, mode="linear", align_corners=False).permute(2, 0, 1).reshape(60, 8)
    np.testing.assert_allclose(position.positions((2, 3, 3), (3, 5, 4), 8), expected.numpy(), atol=1e-6)


def test_the_table_is_that_of_the_formula():
    table = position.sinusoid(1568, 768)
    for n, j in [(0, 0), (1567, 766), (1567, 767), (700, 301)]:
        angle = n / 10000 ** (2 * (j // 2) / 768)
        assert table[n, j] == pytest.approx(np.cos(angle) if j % 2 else np.sin(angle), abs=1e-6)
