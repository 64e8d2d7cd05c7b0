"""Packed texts against the rows that they were made of."""

import numpy as np
import pytest

from jax_promptmtl.models.clip.packing import ROOM, distribute, pack

END = 99


def make_rows(lengths, seed=0, begin=(50, 7)):
    """Return rows [begin, random ids, END, zeros] with so many random ids."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((len(lengths), 24), np.int32)
    for row, length in zip(rows, lengths, strict=True):
        text = [*begin, *rng.integers(1, 50, length), END]
        row[: len(text)] = text
    return rows


def unpack(packed, task, number):
    """Return a text's ids and positions, and check that it is alone in its segment and read at its end."""
    tokens, position, segment, read = packed.suffixes
    u, r, i = packed.where[task, number]
    mine = segment[u, r] == i
    columns = np.flatnonzero(mine)
    assert np.all(np.diff(columns) == 1) and columns[-1] == read[u, r, i]
    return [*packed.prefix, *tokens[u, r, mine]], [*range(len(packed.prefix)), *position[u, r, mine]]


@pytest.mark.parametrize("sets", [(0, 0, 0), (0, 1, 0), (0, 1, 2)])
@pytest.mark.parametrize("chunk, parts", [(0, 1), (1, 1), (5, 1), (0, 8), (20, 4)])
def test_every_text_of_every_task_is_there(sets, chunk, parts):
    tasks = [make_rows([3, 1, 8, 2, 2], 0), make_rows([1, 4] * 20, 1), make_rows([5], 2)]
    tasks[2] = np.concatenate([tasks[2], tasks[0][:2]])
    packed = pack(tasks, sets, chunk, parts)
    assert packed.prefix.tolist() == [50, 7]
    assert packed.where.shape == (3, 40, 3) and packed.where[:, 0, 0].tolist() == list(sets)
    assert [sets[t] for t in packed.first] == list(range(max(sets) + 1))
    for task, rows in enumerate(tasks):
        for number, row in enumerate(rows):
            ids = row[: row.argmax() + 1].tolist()
            assert unpack(packed, task, number) == (ids, list(range(len(ids))))
        assert np.all(packed.where[task, len(rows) :] == packed.where[task, len(rows) - 1])
    assert packed.suffixes[0].shape[1] % (packed.chunks * parts) == 0
    assert (packed.chunks == 1) == (chunk == 0)


def test_equal_texts_of_one_set_are_packed_once():
    rows = make_rows([4, 2, 6, 3, 5])
    one, apart = pack([rows, rows[::-1], rows[:2]], [0, 0, 0]), pack([rows, rows[::-1]], [0, 1])
    assert (one.suffixes[2] >= 0).sum() == sum([4, 2, 6, 3, 5]) + 5
    assert np.array_equal(one.where[0], one.where[1, ::-1])
    assert (apart.suffixes[2] >= 0).sum() == 2 * (one.suffixes[2] >= 0).sum()


def test_the_common_beginning_stops_where_texts_differ_and_before_an_end():
    rows = make_rows([2, 3], begin=(50, 7, 8))
    assert pack([rows], [0]).prefix.tolist() == [50, 7, 8]
    assert pack([rows[:1]], [0]).prefix.tolist() == rows[0, :5].tolist()  # all but the end
    inside = np.zeros((2, 8), np.int32)
    inside[0, :3], inside[1, :4] = [50, 7, END], [50, 7, 7, END]
    assert pack([inside], [0]).prefix.tolist() == [50, 7]


def test_rows_are_even_and_little_is_padding():
    rows = make_rows(np.random.default_rng(0).integers(1, 6, 300))
    segment = pack([rows], [0]).suffixes[2]
    assert segment.shape[2] <= ROOM + 1
    assert (segment >= 0).mean() > 0.95


def test_distribute_puts_each_text_in_one_row():
    lengths = [5, 1, 1, 4, 2, 3]
    rows = distribute(lengths, 2)
    assert sorted(i for row in rows for i in row) == list(range(6))
    assert [sum(lengths[i] for i in row) for row in rows] == [8, 8]
