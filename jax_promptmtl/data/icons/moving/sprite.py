"""The drawings that move: glyphs of icon families, divided so that no drawing is in two parts, at three sharpnesses."""

import functools
import hashlib
from collections import defaultdict

import numpy as np

from jax_promptmtl.data.icons import concepts, glyphs, likeness, raster
from jax_promptmtl.data.icons.moving.render import Sprites, levels

Array = np.ndarray
PARTS = ("train", "tune", "test")
_MOST = 240  # glyphs that are drawn of a family without concepts
_ALIKE = 0.6  # least cosine of a drawing to a plain one of its concept
_TURNED = 0.6  # least cosine to a rotated copy above which a drawing is a disc: turning would not show


@functools.cache
def load(families: tuple[str, ...], part: str, named: tuple[str, ...] = ()) -> Sprites:
    """Draw one part of the sprites of some families.

    Args:
      families: keys of `glyphs.FAMILIES`.
      part: "train", "tune" or "test"; variants and near-duplicates of a drawing are in one part.
      named: concepts; if given, only glyphs that name one of them.

    Returns:
      The sprites; every concept has at least one in every part.

    Raises:
      UserError: a wheel is missing.
    """
    keys, masks, labels = _collect(families, named)
    number = {name: i for i, name in enumerate(named or ("",))}
    chosen = [i for i, owner in enumerate(_parts(keys, masks, labels)) if owner == part]
    chosen.sort(key=lambda i: (number[labels[i]], keys[i]))
    ink = masks[chosen].astype(np.float32) * np.float32(1 / 255)
    body = np.stack([raster.fill_holes(mask > 0.4) for mask in ink]).astype(np.float32)
    concept = np.array([number[labels[i]] for i in chosen])
    return Sprites(tuple(keys[i] for i in chosen), levels(ink), levels(np.maximum(ink, body)), concept)


@functools.cache
def _collect(families: tuple[str, ...], named: tuple[str, ...]) -> tuple[list[str], Array, list[str]]:
    """Render the candidates: keys, masks uint8[N, 64, 64] and concepts, "" for all if none are asked for."""
    keys: list[str] = []
    labels: list[str] = []
    masks = []
    for family in families:
        label = {name: concepts.concept(family, name) for name in glyphs.list_names(family)}
        only = {name for name, found in label.items() if found in named} if named else _some(family, list(label))
        names, drawn = glyphs.render_masks(family, only)
        keys += [f"{family}:{name}" for name in names]
        labels += [str(label[name]) if named else "" for name in names]
        masks.append(drawn)
    drawn = np.concatenate(masks)
    if named:
        keep = likeness.distinct(drawn, labels) & _recognisable(keys, drawn, labels)
    else:
        keep = _large(drawn) & (_least_turned(drawn) < _TURNED)
    index = np.flatnonzero(keep)
    return [keys[i] for i in index], drawn[index], [labels[i] for i in index]


def _some(family: str, names: list[str]) -> set[str]:
    """Choose a fixed sample of a family's names: those with the smallest hashes."""
    return set(sorted(names, key=lambda name: _hash(f"{family}:{name}"))[:_MOST])


def _large(masks: Array) -> Array:
    """Return bool[N]: enough ink to be seen when shown small, and not a mere line."""
    extent = np.stack([(masks > 0).any(axis).sum(1) for axis in (1, 2)])
    large: Array = (masks.mean((1, 2)) > 0.09 * 255) & (extent.min(0) > 0.4 * extent.max(0))
    return large


def _recognisable(keys: list[str], masks: Array, labels: list[str]) -> Array:
    """Return bool[N]: like a drawing of the same concept that is named by one word; `settings_bluetooth` is no gear."""
    names = [key.split(":") for key in keys]
    plain = [len(concepts.words(*name)) == 1 and not any(map(str.isdigit, name[1])) for name in names]
    label = np.unique(labels, return_inverse=True)[1]
    alike = np.where(label[:, None] == label[plain], likeness.cosine(masks, masks[plain]), 0)
    recognisable: Array = alike.max(1) >= _ALIKE
    return recognisable


def _least_turned(masks: Array) -> Array:
    """Return float32[N]: how alike each drawing is to the copy of it, turned by 30 to 90 degrees, that differs most."""
    original = likeness.shapes(masks)
    alike = np.full(len(masks), 1, np.float32)
    for degrees in (30, 45, 60, 90):
        one = np.ones(len(masks), np.float32)
        y, x = raster.affine(
            *raster.grid(masks.shape[-1]),
            angle=one * np.deg2rad(degrees),
            scale=one,
            shear=0 * one,
            shift=np.zeros((len(masks), 2), np.float32),
        )
        turned = raster.sample(masks.astype(np.float32), y, x).astype(np.uint8)
        alike = np.minimum(alike, (original * likeness.shapes(turned)).sum(1))
    return alike


def _parts(keys: list[str], masks: Array, labels: list[str]) -> list[str]:
    """Give every glyph the part of its shape group: of each concept's groups about 60, 15 and 25 %, at least one."""
    number = likeness.group([concepts.variant(key) for key in keys], masks)
    first: dict[int, str] = {}
    groups: dict[str, set[int]] = defaultdict(set)
    for key, label, group in sorted(zip(keys, labels, number, strict=True)):
        first.setdefault(group, key)
        groups[label].add(group)
    part: dict[int, str] = {}
    for members in groups.values():
        order = sorted(members, key=lambda group: _hash(first[group]))
        test = max(1, round(0.25 * len(order)))
        tune = max(1, round(0.15 * len(order)))
        for place, group in enumerate(order):
            part[group] = "test" if place < test else "tune" if place < test + tune else "train"
    return [part[group] for group in number]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
