"""The cache of middle states: the same bits as without, found again, rebuilt when torn, refused without room."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import middle_cache
from jax_promptmtl.data.video_batches import Clips

CLIPS = Clips({"frames": np.random.default_rng(0).normal(size=(7, 3, 4)).astype(np.float32)})
RECIPE = middle_cache.Recipe("toy", "ab", {"frames": 3}, 2, "bfloat16", "train")


class Lower:
    """A compiled lower half that counts its calls."""

    def __init__(self):
        self.calls, self.compiled = 0, jax.jit(self.compute)

    @staticmethod
    def compute(batch):
        tokens = jnp.tanh(batch["frames"] @ jnp.arange(20.0).reshape(4, 5)).astype(jnp.bfloat16)
        return {"tokens": tokens, "mask": batch["frames"][..., 0] > 0, "carry": batch["frames"].sum(axis=(1, 2))}

    def __call__(self, batch):
        if not isinstance(batch["frames"], jax.core.Tracer):
            self.calls += 1
        return self.compiled(batch)


def open_cache(tmp_path, lower, place="disk", recipe=RECIPE, clips=CLIPS, log=list):
    return middle_cache.open_cache(lower, clips, recipe, place=place, batch_size=3, folder=str(tmp_path), log=log)


@pytest.mark.parametrize("place", middle_cache.PLACES)
def test_states_have_the_bits_and_types_of_the_lower_half(tmp_path, place):
    cache = open_cache(tmp_path, Lower(), place)
    order = np.array([6, 0, 3])
    wanted = jax.device_get(Lower()({"frames": CLIPS.arrays["frames"][order]}))
    taken = cache.take(order)
    assert len(cache) == 7 and taken.keys() == wanted.keys()
    for key, value in wanted.items():
        assert taken[key].dtype == value.dtype and taken[key].tobytes() == value.tobytes()
    assert taken["tokens"].dtype == ml_dtypes.bfloat16


def test_a_second_run_finds_the_file_and_another_recipe_does_not(tmp_path):
    first, second, third = Lower(), Lower(), Lower()
    lines = []
    open_cache(tmp_path, first, log=lines.append)
    open_cache(tmp_path, second, log=lines.append)
    open_cache(tmp_path, third, recipe=replace(RECIPE, weights="cd"), log=lines.append)
    assert (first.calls, second.calls, third.calls) == (3, 0, 3)
    assert lines[0].startswith("cache of toy: 7 clips x 37 B = 259 B in ") and "3.7 kB/s" in lines[0]
    assert "found in" in lines[1] and "found in" not in lines[2]
    assert len(list(tmp_path.glob("*.array_record"))) == 2


@pytest.mark.parametrize("field", ["model", "weights", "view", "middle", "dtype", "clips"])
def test_every_part_of_the_recipe_counts(field):
    other = {"view": {"frames": 4}, "middle": 3}.get(field, "other")
    assert replace(RECIPE, **{field: other}).key() != RECIPE.key() == replace(RECIPE).key()


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    "harm",
    [
        cut,
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").write_text("{}"),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
    ],
    ids=["cut", "empty", "gone", "without json", "torn json", "empty json", "zeros"],
)
def test_a_torn_file_is_made_again(tmp_path, harm):
    open_cache(tmp_path, Lower())
    (path,) = tmp_path.glob("*.array_record")
    harm(path)
    again = Lower()
    cache = open_cache(tmp_path, again)
    assert again.calls == 3
    wanted = np.asarray(Lower()(CLIPS.arrays)["tokens"])
    np.testing.assert_array_equal(cache.take(np.arange(7))["tokens"], wanted)


def test_a_damaged_record_is_never_given_out(tmp_path):
    cache = open_cache(tmp_path, Lower())
    record = cache.reader.read([2])[0]
    with pytest.raises(UserError, match="is damaged; delete the file"):
        cache.split(bytes([record[0] ^ 1]) + record[1:])


def test_no_room_is_one_sentence_and_nothing_is_computed(tmp_path, monkeypatch):
    lower = Lower()
    monkeypatch.setattr(middle_cache, "free_disk", lambda folder: 100)
    with pytest.raises(UserError, match=r"The cache needs 265 B, and the disk of .* has 100 B; take fewer clips"):
        open_cache(tmp_path, lower)
    monkeypatch.setattr(middle_cache, "free_memory", lambda: 200)
    with pytest.raises(UserError, match="The cache needs 259 B, and memory has 200 B; take fewer clips or 'disk'"):
        open_cache(tmp_path, lower, "memory")
    assert lower.calls == 0 and not list(tmp_path.glob("*.array_record"))


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write the cache"):
        open_cache(tmp_path / "file" / "below", Lower())


def test_room_is_measured_where_the_folder_will_be(tmp_path):
    assert middle_cache.free_disk(tmp_path / "not" / "yet") > 10**6
    assert middle_cache.free_memory() > 10**6
