"""Split texts into a common prefix and suffixes, and pack the suffixes into few rows of even length."""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ROOM = 32  # tokens per row: attention within a row stays cheap, and matrix products are large enough


class Packed(NamedTuple):
    """Texts of U sets, packed into R rows of N tokens for each set.

    Attributes:
      prefix: int[N0], the ids common to the start of all texts.
      suffixes: four arrays, as `TextTower.encode_suffixes` takes them: int[U, R, N] ids, positions in their texts and
        numbers of the texts in their rows (-1 in padding), and int[U, R, n], positions of the end-of-text tokens.
      where: int[T, C, 3], set, row and number in the row of every text of every task.
      first: int[U], a task of each set.
      chunks: a divisor of R, the number of parts to encode one after the other.
    """

    prefix: np.ndarray
    suffixes: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    where: np.ndarray
    first: np.ndarray
    chunks: int


def distribute(lengths: Sequence[int], rows: int) -> list[list[int]]:
    """Distribute texts to rows of about equal length: the longest first, each to the shortest row.

    >>> distribute([2, 5, 3], 2)
    [[1], [2, 0]]
    """
    heap = [(0, row) for row in range(rows)]
    content: list[list[int]] = [[] for _ in heap]
    for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
        filled, row = heapq.heappop(heap)
        content[row].append(text)
        heapq.heappush(heap, (filled + lengths[text], row))
    return content


def pack(rows: Sequence[np.ndarray], sets: Sequence[int], chunk: int = 0, parts: int = 1) -> Packed:
    """Pack the texts of T tasks; equal texts of one set are stored once.

    Args:
      rows: per task int[C_t, N], token rows; the largest id ends a text, what follows it is not read.
      sets: per task the number of its set, 0 to U - 1. Different sets have different prompts.
      chunk: about how many texts of a set to encode at a time; all if 0. R is made divisible accordingly.
      parts: number of devices over which rows of a set and chunk are sharded; R is made divisible by it, too.

    Returns:
      The packed texts; tasks of fewer classes than C repeat their last one in `where`.
    """
    texts = [[tuple(map(int, row[: row.argmax() + 1])) for row in task] for task in rows]
    every = {text for task in texts for text in task}
    shortest = min(map(len, every)) - 1  # the end-of-text token always belongs to the suffix
    begin = next((i for i in range(shortest) if len({text[i] for text in every}) > 1), shortest)
    unique = [
        list(dict.fromkeys(text for task, u in zip(texts, sets, strict=True) if u == number for text in task))
        for number in range(max(sets) + 1)
    ]
    chunks = -(-max(map(len, unique)) // chunk) if chunk else 1
    needed = -(-max(sum(len(text) - begin for text in texts) for texts in unique) // ROOM)
    count = -(-needed // (chunks * parts)) * chunks * parts
    shelves = [distribute([len(text) - begin for text in texts], count) for texts in unique]
    length = max(sum(len(unique[u][i]) - begin for i in row) for u, shelf in enumerate(shelves) for row in shelf)
    reads = max(len(row) for shelf in shelves for row in shelf)
    shape = (len(unique), count)
    tokens, position = np.zeros((*shape, length), np.int32), np.zeros((*shape, length), np.int32)
    segment, read = np.full((*shape, length), -1, np.int32), np.zeros((*shape, reads), np.int32)
    place = {}
    for u, shelf in enumerate(shelves):
        for r, row in enumerate(shelf):
            column = 0
            for number, text in enumerate(unique[u][i] for i in row):
                part = slice(column, column + len(text) - begin)
                tokens[u, r, part], segment[u, r, part] = text[begin:], number
                position[u, r, part] = range(begin, len(text))
                read[u, r, number], place[u, text] = part.stop - 1, (u, r, number)
                column = part.stop
    most = max(map(len, texts))
    where = [[place[u, text] for text in (task + task[-1:] * most)[:most]] for task, u in zip(texts, sets, strict=True)]
    first = [list(sets).index(u) for u in range(len(unique))]
    prefix = np.array(next(iter(every))[:begin], np.int32)
    return Packed(prefix, (tokens, position, segment, read), np.array(where), np.array(first), chunks)
