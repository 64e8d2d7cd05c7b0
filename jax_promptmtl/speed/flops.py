"""Closed-form FLOP counts of a cell: as the peers compute it, and the necessary minimum.

Only matrix products are counted, 2 operations per multiply-add. "Necessary" shares what is independent of class and
image, computes only keys and values of prompts whose outputs are unused, runs the last block for the output row alone,
and differentiates only what depends on a prompt; keys and values of the start token are constants. Neither count
includes gradients of frozen weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jax_promptmtl.speed import cells
from jax_promptmtl.speed.cells import Cell


@dataclass(frozen=True)
class Flops:
    """FLOPs of one tower or cell: `forward`, and `backward` to the prompts."""

    forward: float = 0.0
    backward: float = 0.0

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.forward + other.forward, self.backward + other.backward)

    def __mul__(self, times: float) -> "Flops":
        return Flops(times * self.forward, times * self.backward)

    @property
    def total(self) -> float:
        """Return the sum of both."""
        return self.forward + self.backward


def plain_tower(width: int, layers: int, tokens: int, embed_dim: int) -> Flops:
    """Return the FLOPs of one sequence through full blocks: 24 D^2 per token, 4 D per pair of tokens.

    >>> plain_tower(1, 1, 1, 1)
    Flops(forward=30.0, backward=34.0)
    """
    linear, pairs = 24.0 * layers * width**2 * tokens, 4.0 * layers * width * tokens**2
    projection = 2.0 * width * embed_dim
    return Flops(linear + pairs + projection, linear + 2 * pairs + projection)


def plain(cell: Cell, model: str) -> float:
    """Return the FLOPs of a cell in the peers: all text positions, every class, prompts through full blocks."""
    c, made = cells.MODELS[model], cells.recipe(cell, model)
    step, tasks = cell.kind == "step", cell.tasks if cell.kind == "step" else 1
    image_prompts = {"coop": 0, "mmap": 2 * made["length"]}.get(cell.method, made["length"])
    text = plain_tower(c.text_width, c.text_layers, c.context_length, c.embed_dim) * (cell.classes * tasks)
    image = plain_tower(c.image_width, c.image_layers, patches(c) + 1 + image_prompts, c.embed_dim) * cell.batch
    text = text if cell.method != "vpt" else Flops()  # the peers cache features of frozen texts
    parts = [
        text if step else Flops(text.forward),
        image if step and cell.method != "coop" else Flops(image.forward),
        Flops(patch_embedding(c) * cell.batch),
        scores(cell, c, step),
        coupling(cell, c, made, step),
    ]
    return sum(parts, Flops()).total


def plain_bytes(cell: Cell, model: str) -> float:
    """Estimate torch's memory for a step of one task in bytes: 20 floats per channel, token and layer."""
    c = cells.MODELS[model]
    text = cell.classes * c.context_length * c.text_layers * c.text_width
    image = cell.batch / cell.tasks * (patches(c) + 1) * c.image_layers * c.image_width
    return 20 * 4 * (text + image)


def necessary(cell: Cell, model: str, *, cached_images: bool = False) -> float:
    """Return the necessary FLOPs of a cell; with `cached_images`, given frozen image features."""
    c, made = cells.MODELS[model], cells.recipe(cell, model)
    step, tasks = cell.kind == "step", cell.tasks if cell.kind == "step" else 1
    prompts = {"coop": 0, "mmap": 2 * made["length"]}.get(cell.method, made["length"])
    sets = min(tasks, cell.batch) if cell.method == "mmap" else 1
    lengths = cells.name_lengths(cell, model).tolist()
    text = text_tower(c.text_width, c.text_layers, made["slot"], made["depth"], cells.words(cell), lengths)
    text = (text + Flops(1.0, 1.0) * (2.0 * len(lengths) * c.text_width * c.embed_dim)) * sets
    depth = made["depth"] if prompts else 0
    image = image_tower(c.image_width, c.image_layers, patches(c) + 1, prompts, depth, cell.batch, sets)
    image = image + Flops(1.0, 1.0 if prompts else 0.0) * (2.0 * cell.batch * c.image_width * c.embed_dim)
    image = Flops() if cached_images else image + Flops(patch_embedding(c) * cell.batch)
    text = text if cell.method != "vpt" else Flops()
    if not step:
        text, image = Flops(text.forward), Flops(image.forward)
    return (text + image + scores(cell, c, step) + coupling(cell, c, made, step)).total


def image_tower(width: int, layers: int, tokens: int, prompts: int, depth: int, batch: int, sets: int) -> Flops:
    """Return the necessary FLOPs of an image tower's blocks.

    Args:
      width: D.
      layers: K.
      tokens: N per image, the class token included.
      prompts: P per layer.
      depth: layers J with their own prompts; the last ones then pass through. 0 is no prompts and no gradient.
      batch: images.
      sets: distinct sets of prompts in the batch.
    """
    u, forward, backward = float(width**2), 0.0, 0.0
    for k in range(layers):
        last, given = k + 1 == layers, k < depth
        rows, flowing = (1 if last else tokens), prompts and not last and k + 1 >= depth
        seen = rows * (tokens + prompts) + (prompts * (tokens + prompts) if flowing else 0)
        shared = u * prompts * (4 + 2 * bool(flowing)) * sets if given else 0.0  # keys, values, queries of new prompts
        own = 18 * u * prompts if flowing else 0.0
        if not given:
            own += u * prompts * (4 + 2 * bool(flowing))
        forward += shared + batch * (u * (4 * tokens + 20 * rows) + own + 4 * width * seen)
        if k > 0:
            backward += shared + batch * (u * (4 * tokens + 20 * rows) + own + 8 * width * seen)
        else:  # the tokens themselves do not depend on prompts yet
            pairs = 6 * rows * prompts + (4 * prompts * tokens + 8 * prompts**2 if flowing else 0)
            backward += shared + batch * (18 * u * rows + own + width * pairs)
    return Flops(forward, backward if depth else 0.0)


def text_tower(width: int, layers: int, prompts: int, depth: int, words: int, names: Sequence[int]) -> Flops:
    """Return the necessary FLOPs of a text tower's blocks for one set of prompts.

    Args:
      width: D.
      layers: K.
      prompts: P after the start token.
      depth: layers J with their own prompts; the last ones then pass through.
      words: tokens W of the template before the name.
      names: tokens of each class from its name to the end of the text.
    """
    u, forward, backward = float(width**2), 0.0, 0.0
    lengths = np.asarray(names)
    own, count, before = int(lengths.sum()), len(lengths), prompts + words
    inner = int((lengths * (lengths + 1) // 2).sum())
    for k in range(layers):
        last = k + 1 == layers
        flowing = prompts if not last and k + 1 >= depth else 0
        prefix = 0 if last else words
        rows = count if last else own
        to_start = flowing + prefix + rows
        among_prompts = flowing * (flowing + 1) // 2
        to_prompts = (prefix + rows) * prompts
        rest = prefix * (prefix + 1) // 2 + rows * words + (own if last else inner)
        keys, queries = 4 * u * (before + own), 20 * u * (flowing + prefix + rows)
        forward += keys + queries + 4 * width * (to_start + among_prompts + to_prompts + rest)
        if k > 0:
            backward += keys + queries + width * (4 * to_start + 8 * (among_prompts + to_prompts + rest))
        else:  # words and names do not depend on prompts yet
            linear = u * (4 * prompts + 20 * flowing + 18 * (prefix + rows))
            backward += linear + width * (4 * flowing + 8 * among_prompts + 6 * to_prompts)
    return Flops(forward, backward)


def patches(c: Any) -> int:
    """Return the number of patches of an image."""
    side: int = c.image_size // c.patch_size
    return side * side


def patch_embedding(c: Any) -> float:
    """Return the FLOPs of the patch embedding of an image."""
    return float(2.0 * patches(c) * 3 * c.patch_size**2 * c.image_width)


def scores(cell: Cell, c: Any, step: bool) -> Flops:
    """Return the FLOPs of the products of image and class features."""
    once = 2.0 * cell.batch * cell.classes * c.embed_dim
    sides = {"coop": 1, "vpt": 1}.get(cell.method, 2) if step else 0
    return Flops(once, sides * once)


def coupling(cell: Cell, c: Any, made: dict[str, Any], step: bool) -> Flops:
    """Return the FLOPs of MaPLe's trainable maps from text to image prompts."""
    if cell.method != "maple":
        return Flops()
    once = 2.0 * made["depth"] * made["length"] * c.text_width * c.image_width
    return Flops(once, 2 * once if step else 0.0)
