"""Segmental scores: hand-computed cases, quirks of the evaluator, and brute force."""

import functools

import numpy as np
import pytest

from jax_promptmtl.tasks.metrics import segmental as metric


def test_segments_end_after_their_last_frame_but_the_last_segment_does_not():
    assert metric.segments("aabbb") == (["a", "b"], pytest.approx([0, 2]), pytest.approx([2, 4]))
    found = metric.segments(np.array(["background", "x", "background", "background"]))
    assert found.label == ["x"] and found.start.tolist() == [1] and found.end.tolist() == [2]
    assert metric.segments([7]).end.tolist() == [0] and metric.segments(["background"] * 3).label == []


def test_background_is_an_exact_string_unless_told_otherwise():
    assert metric.segments(["Background", "background"]).label == ["Background"]
    assert metric.segments([0, 1, 1]).label == [0, 1] and metric.segments([0, 1, 1], background=(0,)).label == [1]


@pytest.mark.parametrize("seed", range(30))
def test_edit_distance_is_the_textbook_recursion(seed):
    rng = np.random.default_rng(seed)
    left, right = (tuple(rng.integers(0, 3, rng.integers(0, 6)).tolist()) for _ in range(2))

    @functools.cache
    def distance(i, j):
        if not i or not j:
            return i + j
        change = distance(i - 1, j - 1) + (left[i - 1] != right[j - 1])
        return min(change, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    assert metric.edit_distance(left, right) == distance(len(left), len(right))


def test_edit_score_by_hand():
    assert metric.edit_score("aabbcc", "abc") == 100
    assert metric.edit_score("aabbaa", "aaaaaa") == pytest.approx(100 / 3)
    assert metric.edit_score(["background"] * 2, ["background"] * 2) == 100
    assert metric.edit_score(["background"] * 2, ["a", "a"]) == 0


def test_counts_by_hand():
    true = "aaaabbbbcccc"
    assert metric.counts(true, true, 0.5) == (3, 0, 0)
    assert metric.counts("aaaaaabbcccc", true, 0.5) == (3, 0, 0)  # a: 4/6, b: 2/4
    assert metric.counts("aaaaaaabcccc", true, 0.5) == (2, 1, 1)  # b: 1/4
    assert metric.counts("abababababab", true, 0.1) == (2, 10, 1)
    assert metric.counts(["background"] * 12, true, 0.1) == (0, 0, 3)
    assert metric.counts("aab", ["background"] * 3, 0.1) == (0, 2, 0)


def test_the_last_segment_is_one_frame_shorter_and_a_single_frame_never_a_hit():
    assert metric.counts("aaab", "aaab", 0.1) == (1, 1, 1)  # the evaluator's 0 / 0
    assert metric.counts("aabb", "aabb", 0.5) == (2, 0, 0)
    assert metric.counts("abbb", "aaab", 0.1) == (1, 1, 1)  # b: nothing in common with a segment of no length
    # b: 4-5 and 3-5 without the last frame overlap by 1/2; with it, it would be 2/3.
    assert metric.counts("aaaabb", "aaabbb", 0.6)[0] == 1 and metric.counts("aaaabb", "aaabbb", 0.5)[0] == 2


def slow_counts(predicted, true, overlap):
    """Count with sets of the half-open unit intervals that the evaluator's ends leave."""

    def runs(labels):
        starts = [i for i in range(len(labels)) if not i or labels[i] != labels[i - 1]]
        stops = [*starts[1:], len(labels) - 1]
        return [(labels[a], set(range(a, b))) for a, b in zip(starts, stops, strict=True) if labels[a] != "background"]

    theirs, taken, tp = runs(true), set(), 0
    ours = runs(predicted)
    for label, ticks in ours:
        shares = [len(ticks & t) / max(len(ticks | t), 1) if label == name else 0 for name, t in theirs]
        best = int(np.argmax(shares)) if shares else -1
        if shares and shares[best] >= overlap and best not in taken:
            taken.add(best)
            tp += 1
    return tp, len(ours) - tp, len(theirs) - len(taken)


@pytest.mark.parametrize("seed", range(5))
def test_brute_force(seed):
    rng = np.random.default_rng(seed)
    names = ["a", "b", "background"]
    for _ in range(60):
        size = rng.integers(2, 15)
        pair = [np.repeat(rng.choice(names, size), 2)[:size].tolist() for _ in range(2)]
        if pair[0][-1] != pair[0][-2] and pair[1][-1] != pair[1][-2]:
            continue  # two single last frames: 0 / 0, tested above
        for overlap in metric.OVERLAPS:
            assert metric.counts(*pair, overlap) == slow_counts(*pair, overlap), pair


def test_a_split_sums_counts_and_frames_but_averages_edit_over_videos():
    predicted, true = ["aaaaaaaabb", "bb"], ["aaaaaaaabb", "aa"]
    scores = metric.segmental([list(p) for p in predicted], [list(t) for t in true])
    assert scores["accuracy"] == pytest.approx(100 * 10 / 12) and scores["edit"] == 50
    assert scores["f1@10"] == scores["f1@25"] == scores["f1@50"] == pytest.approx(100 * 2 * 2 / (2 * 2 + 1 + 1))
    assert list(scores) == ["accuracy", "edit", "f1@10", "f1@25", "f1@50"]
    nothing = metric.segmental([[1, 1]], [[2, 2]])
    assert nothing == {"accuracy": 0, "edit": 0, "f1@10": 0, "f1@25": 0, "f1@50": 0}
    with pytest.raises(ValueError, match="longer than"):
        metric.segmental([[1]], [[1, 1]])
