"""One random stream per clip."""

import numpy as np
import pytest

from jax_promptmtl.data.icons.moving.draws import LENGTH, Draws


def test_streams_depend_on_key_and_index_alone():
    many, one = Draws(("a", 0), [7, 3, 9]), Draws(("a", 0), [3])
    assert np.array_equal(many.uniform(-1, 1, 2, 3)[1], one.uniform(-1, 1, 2, 3)[0])
    assert not np.array_equal(Draws(("b", 0), [3]).uniform(-1, 1, 4), Draws(("a", 0), [3]).uniform(-1, 1, 4))


def test_ranges_and_frequencies():
    draws = Draws(("range",), range(2000))
    value = draws.uniform(2, 5)
    assert value.dtype == np.float32 and value.min() >= 2 and value.max() <= 5 and abs(value.mean() - 3.5) < 0.1
    below = draws.below(np.array([1, 4] * 1000))
    assert set(below[::2]) == {0} and np.bincount(below[1::2]).min() > 180
    assert abs(draws.chance(0.3).mean() - 0.3) < 0.04
    chosen = draws.choose(np.tile([0.0, 1.0, 0.0, 3.0, 0.0], (2000, 1)))
    assert set(chosen) == {1, 3} and abs((chosen == 3).mean() - 0.75) < 0.04
    assert np.array_equal(np.sort(draws.order(5, 2)), np.tile(np.arange(5), (2000, 2, 1)))


def test_a_stream_ends():
    draws = Draws(("end",), [0])
    draws.uniform(0, 1, LENGTH)
    with pytest.raises(ValueError, match="LENGTH"):
        draws.uniform(0, 1)
