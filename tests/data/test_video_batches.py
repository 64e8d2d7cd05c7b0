"""Batches of clips: every clip once per epoch, resumable anywhere, split over processes, companions in step."""

from itertools import islice

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.video_batches import Clips, Elsewhere, Prefixed, all_batches, training_batches

NUMBERS = Clips({"number": np.arange(12), "square": np.arange(12) ** 2})


def flat(rows):
    return [number for row in rows for number in row]


def numbers(batches, key="number"):
    return [batch[key].tolist() for batch in batches]


def test_an_epoch_has_every_clip_once_and_a_resume_goes_on_where_it_was():
    run = list(islice(training_batches([NUMBERS], batch_size=4, seed=3), 6))
    first, second = flat(numbers(run[:3])), flat(numbers(run[3:]))
    assert sorted(first) == sorted(second) == list(range(12)) and first != second
    assert numbers(islice(training_batches([NUMBERS], batch_size=4, seed=3, start_step=4), 2)) == numbers(run[4:])
    assert first != flat(numbers(islice(training_batches([NUMBERS], batch_size=4, seed=4), 3)))
    for batch in run:
        np.testing.assert_array_equal(batch["square"], batch["number"] ** 2)
        np.testing.assert_allclose(batch["weight"], 1 / 4)
        assert batch["task"].dtype == np.int32 and not batch["task"].any()


def test_every_pass_shows_all_examples_in_their_next_views():
    options = {"batch_size": 4, "seed": 3, "views": 4, "repeats": 2}
    run = list(islice(training_batches([NUMBERS], **options), 6))  # 12 clips are 3 examples in 4 views
    clips = np.array(flat(numbers(run))).reshape(4, 6)  # a pass has 3 examples in 2 views
    for number, clip in enumerate(clips):
        views, examples = np.divmod(clip, 3)
        np.testing.assert_array_equal(views.reshape(3, 2), [[2 * number % 4, 2 * number % 4 + 1]] * 3)
        assert sorted(examples[::2]) == [0, 1, 2] and (examples[::2] == examples[1::2]).all()
    assert numbers(islice(training_batches([NUMBERS], **options, start_step=4), 2)) == numbers(run[4:])


def test_processes_share_a_batch():
    whole = next(training_batches([NUMBERS], batch_size=6, seed=0))
    options = dict(batch_size=6, seed=0, process_count=2)
    parts = [next(training_batches([NUMBERS], process_index=i, **options))["number"] for i in range(2)]
    assert sorted(np.concatenate(parts)) == sorted(whole["number"]) and len(parts[0]) == len(parts[1]) == 3


def test_evaluation_has_every_clip_once_and_padding_without_weight():
    batches = list(all_batches([NUMBERS], batch_size=5))
    assert [len(batch["number"]) for batch in batches] == [5, 5, 5]
    assert np.concatenate([b["number"][b["weight"] > 0] for b in batches]).tolist() == list(range(12))


def test_stand_ins_are_a_permutation_without_fixed_points_that_moves_with_its_clip():
    other = Prefixed(Elsewhere(NUMBERS, 1), "other/")
    taken = other.take(np.arange(12))["other/number"]
    assert sorted(taken) == list(range(12)) and (taken != np.arange(12)).all()
    order = np.array([7, 2, 9])
    np.testing.assert_array_equal(other.take(order)["other/number"], taken[order])


def test_companions_have_an_order_and_a_length_of_their_own():
    short, long = (Prefixed(Clips({"number": np.arange(n)}), f"{n}/") for n in (5, 20))
    run = list(islice(training_batches([NUMBERS], batch_size=4, seed=0, companions=[short, long]), 15))
    assert sorted(flat(numbers(run[:5], "20/number"))) == list(range(20))
    assert sorted(flat(numbers(run[:5], "5/number"))) == sorted([*range(5)] * 4)
    assert [b["number"].tolist() for b in run[:3]] == numbers(
        islice(training_batches([NUMBERS], batch_size=4, seed=0), 3)
    )
    assert len(next(all_batches([NUMBERS], batch_size=12, companions=[short]))["5/number"]) == 12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: training_batches([NUMBERS, Clips({"a": np.zeros(3)})], batch_size=2, seed=0), r"have \[3, 12\] clips"),
        (lambda: all_batches([Clips({"a": np.zeros(0)})], batch_size=2), r"have \[0\] clips"),
        (
            lambda: training_batches([NUMBERS], batch_size=3, seed=0, process_count=2),
            "Batch size 3 is not a positive multiple of the 2 processes",
        ),
    ],
)
def test_what_cannot_be_batched_is_one_sentence(call, message):
    with pytest.raises(UserError, match=message):
        next(call())
