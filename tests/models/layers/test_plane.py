"""Sampling and resizing against torch."""

import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.models.layers import plane


def test_sampling_is_that_of_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    maps, points = rng.standard_normal((3, 5, 7)), rng.uniform(-0.2, 1.2, (3, 40, 2))
    points[0, :3] = [[0, 0], [1, 1], [0.5, 1]]
    grid = 2 * torch.tensor(points)[:, :, None] - 1
    wanted = torch.nn.functional.grid_sample(torch.tensor(maps)[:, None], grid, align_corners=False)[:, 0, :, 0]
    found = plane.sample(jnp.asarray(maps, jnp.float32), jnp.asarray(points, jnp.float32))
    np.testing.assert_allclose(found, wanted, atol=2e-6)


@pytest.mark.parametrize("size", [(3, 4), (5, 7), (10, 9)])
def test_resizing_is_that_of_torch(size):
    torch = pytest.importorskip("torch")
    maps = np.random.default_rng(0).standard_normal((2, 3, 5, 7))
    wanted = torch.nn.functional.interpolate(torch.tensor(maps), size=size, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(plane.resize(jnp.asarray(maps, jnp.float32), *size), wanted, atol=2e-6)


def test_the_centres_of_cells_show_the_cells():
    maps = jnp.arange(12.0).reshape(3, 4)
    centres = [((column + 0.5) / 4, (row + 0.5) / 3) for row in range(3) for column in range(4)]
    np.testing.assert_allclose(plane.sample(maps, jnp.asarray(centres)), maps.ravel(), atol=1e-5)
