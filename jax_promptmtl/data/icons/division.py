"""Divide the drawings of the icon suite into those for training, for tuning and for the test.

The unit is the shape group: glyphs that are variants of one icon or near-duplicates, across all families of a class. A
group has one part in every style, so no drawing is ever on both sides. `python -m jax_promptmtl.data.icons.division`
writes the committed file again.
"""

import hashlib
import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jax_promptmtl.data.icons import concepts, glyphs, icon_split, likeness
from jax_promptmtl.data.icons.icon_split import PARTS, Split

STYLES: dict[str, tuple[str, ...]] = {  # a style is a task; a family is in one style only
    "line": ("lucide", "lineicons", "eva"),
    "clip": ("boxicons", "typicons", "bootstrap"),
    "product": ("fa6s", "fa5s", "elusive", "ion"),
    "real": ("remix", "phosphor"),
}
_HELD_OUT = 0.4  # share of a class's groups in a style that is kept for the test
_TUNE = 1 / 3  # share of the other groups that is held out while hyper-parameters are chosen
_OUTLINE_ONLY = {"eva": "-outline"}  # the filled twins would not look drawn with a line


@dataclass(frozen=True)
class Glyphs:
    """The labelled glyphs of all styles, in one order: N keys `family:name`, styles, classes and masks."""

    keys: list[str]
    styles: list[str]
    classes: list[str]
    masks: np.ndarray  # uint8[N, 64, 64]


def collect(styles: dict[str, tuple[str, ...]] = STYLES) -> Glyphs:
    """Render every glyph that names exactly one of the 48 classes.

    Args:
      styles: {style: families}.

    Returns:
      The glyphs, by style, family and name.
    """
    keys, styled, classes, masks = [], [], [], []
    for style, family in ((style, family) for style, families in styles.items() for family in families):
        labels = {name: concepts.concept(family, name) for name in glyphs.list_names(family)}
        ending = _OUTLINE_ONLY.get(family, "")
        wanted_names = {name for name, label in labels.items() if label in concepts.CLASSES and name.endswith(ending)}
        names, drawn = glyphs.render_masks(family, wanted_names)
        keys += [f"{family}:{name}" for name in names]
        styled += [style] * len(names)
        classes += [str(labels[name]) for name in names]
        masks.append(drawn)
    return Glyphs(keys, styled, classes, np.concatenate(masks))


def wanted(groups: int) -> dict[str, int]:
    """Say how many groups of a class in a style go to each part.

    >>> wanted(2), wanted(5)
    ({'train': 1, 'tune': 0, 'test': 1}, {'train': 2, 'tune': 1, 'test': 2})
    """
    test = max(1, round(_HELD_OUT * groups))
    tune = max(1, round(_TUNE * (groups - test))) if groups - test > 1 else 0
    return {"train": groups - test - tune, "tune": tune, "test": test}


def divide(label: str, styles_of: dict[int, frozenset[str]], first_key: dict[int, str]) -> dict[int, str]:
    """Give every group of one class a part, so that each style comes as near to its wanted counts as it can.

    A group that two styles share counts in both. The search starts from eight orders given by a hash of the keys and
    moves one group at a time while that helps; it has no random numbers, hence one result on every machine.

    Args:
      label: the class.
      styles_of: {group: styles in which it has glyphs}.
      first_key: {group: its first key}.

    Returns:
      {group: part}.
    """
    sizes = Counter(style for styles in styles_of.values() for style in styles)
    goal = {style: wanted(size) for style, size in sizes.items()}

    def cost(part: dict[int, str]) -> int:
        have = Counter((style, part[g]) for g, styles in styles_of.items() for style in styles)
        off = sum(abs(have[style, p] - goal[style][p]) for style in goal for p in PARTS)
        return off + 100 * sum(goal[style][p] > 0 and not have[style, p] for style in goal for p in PARTS)

    starts = ({g: _hash(label, first_key[g], str(restart)) for g in styles_of} for restart in range(8))
    found = [_descend(start, cost) for start in starts]
    return min(found, key=cost)


def _descend(order: dict[int, str], cost: Callable[[dict[int, str]], int]) -> dict[int, str]:
    """Start from the parts that the hashes give, then move one group at a time while the cost falls."""
    part = {g: PARTS[int(order[g][:8], 16) % len(PARTS)] for g in sorted(order, key=order.__getitem__)}
    price, improved = cost(part), True
    while improved:
        improved = False
        for g, p in itertools.product(list(part), PARTS):
            lower = cost({**part, g: p})
            if lower < price:
                part, price, improved = {**part, g: p}, lower, True
    return part


def _hash(*words: str) -> str:
    return hashlib.sha256("/".join(words).encode()).hexdigest()


def make(found: Glyphs) -> Split:
    """Split the glyphs.

    Args:
      found: from `collect`.

    Returns:
      The split; its part `tune` belongs to the training half and is held out only while hyper-parameters are chosen.
    """
    keep = likeness.distinct(found.masks, found.classes)
    split: Split = {style: {label: {p: [] for p in PARTS} for label in concepts.CLASSES} for style in STYLES}
    for label in concepts.CLASSES:
        index = [i for i in np.flatnonzero(keep) if found.classes[i] == label]
        variants = [concepts.variant(found.keys[i]) for i in index]
        number = likeness.group(variants, found.masks[index])
        members: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for i, g in zip(index, number, strict=True):
            members[g][found.styles[i]].append(found.keys[i])
        styles_of = {g: frozenset(by_style) for g, by_style in members.items()}
        first_key = {g: min(min(keys) for keys in by_style.values()) for g, by_style in members.items()}
        part = divide(label, styles_of, first_key)
        for g, by_style in members.items():
            for style, keys in by_style.items():
                split[style][label][part[g]].append(sorted(keys))
    for by_class in split.values():
        for by_part in by_class.values():
            for groups in by_part.values():
                groups.sort()
    return split


def main() -> None:
    """Write the split file and print how many groups and glyphs each style has."""
    split = make(collect())
    text = json.dumps({"sha256": icon_split.digest(split), "split": split}, indent=1)
    text = re.sub(r"\[\s*\n\s*([^\[\]{}]*?)\s*\n\s*\]", lambda m: "[" + re.sub(r"\s*\n\s*", " ", m[1]) + "]", text)
    icon_split.PATH.write_text(text + "\n")
    for style in STYLES:
        of_style = [row for row in icon_split.rows(split) if row.style == style]
        for part in PARTS:
            chosen = [row for row in of_style if row.part == part]
            print(f"{style:8} {part:6} {len({(r.label, r.group) for r in chosen}):4} groups {len(chosen):4} glyphs")
    print(icon_split.digest(split))


if __name__ == "__main__":
    main()
