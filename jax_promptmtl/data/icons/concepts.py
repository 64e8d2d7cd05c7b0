"""What an icon shows, read from its name: caption words, and the one object that it names, if it names exactly one."""

import functools
import re
import tomllib

from jax_promptmtl.core.files import ASSETS

_TABLE = tomllib.loads((ASSETS / "concepts.toml").read_text(encoding="utf-8"))

CLASSES: tuple[str, ...] = tuple(_TABLE["classes"])  # the 48 classes of the icon suite
CONCEPTS: tuple[str, ...] = (*_TABLE["classes"], *_TABLE["others"])


def words(family: str, name: str) -> list[str]:
    """Split a glyph's name into caption words: no digits, no words of style, each family's slang translated.

    Args:
      family: the family's key.
      name: the glyph's name in its font.

    Returns:
      Lower-case words, in the order of the name.

    >>> words("remix", "heart-2-fill"), words("fluent_reg", "ic-fluent-call-end-24-regular")
    (['heart'], ['telephone', 'end'])
    """
    drop = f"{_TABLE['style_words']['any']} {_TABLE['style_words'].get(family, '')}".split()
    readings = _TABLE["readings"].get(family, {})
    found = [word.lower() for part in re.split(r"[-_]", name) if (word := _letters(part))]
    found = [word for word in found if word not in drop]
    return [piece for word in found for piece in readings.get(word, word).split("-")]


def _letters(part: str) -> str:
    """Drop the digits around a word: calendar2 -> calendar, 24 -> nothing."""
    return "3d" if part.lower() == "3d" else "".join(re.findall(r"[a-zA-Z]+", part))


@functools.cache
def _phrases() -> dict[tuple[str, ...], str]:
    """Index the table by phrase, as tuples of singular words."""
    table: dict[tuple[str, ...], str] = {}
    for concept_name, phrases in (*_TABLE["classes"].items(), *_TABLE["others"].items()):
        for phrase in phrases.split("|"):
            table.setdefault(tuple(_singular(word) for word in phrase.split()), concept_name)
    return table


def _singular(word: str) -> str:
    """Cut a plural s; used on both sides, so that it need not be grammar."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def named(tokens: list[str]) -> list[str]:
    """List the concepts in a sequence of words, the longest phrase first at every position.

    Args:
      tokens: lower-case words.

    Returns:
      Concepts in order, with repeats.

    >>> named(["shopping", "cart", "heart"]), named(["piggy", "bank"])
    (['cart', 'heart'], ['piggy bank'])
    """
    singular = [_singular(word) for word in tokens]
    table, found, start = _phrases(), [], 0
    while start < len(singular):
        for size in range(min(4, len(singular) - start), 0, -1):
            hit = table.get(tuple(singular[start : start + size]))
            if hit:
                found.append(hit)
                start += size - 1
                break
        start += 1
    return found


def concept(family: str, name: str) -> str | None:
    """Return the object that a glyph's name names, if it names exactly one and nothing vetoes it.

    Args:
      family: the family's key.
      name: the glyph's name in its font.

    Returns:
      One of `CONCEPTS`, or None: no object, several, or a container such as `account-box`.

    >>> concept("lucide", "bell-electric"), concept("mdi6", "heart-box"), concept("mi", "arrow_drop_down")
    (None, None, None)
    >>> concept("fa6s", "bell-slash"), concept("phosphor", "speaker-high-fill"), concept("boxicons", "bxs-map")
    ('bell', 'speaker', 'location')
    """
    tokens = words(family, name)
    found = set(named(tokens))
    if len(found) != 1 or (len(tokens) > 1 and tokens[-1] == "box"):
        return None
    only = found.pop()
    return None if set(_TABLE["vetoes"].get(only, "").split()) & set(tokens) else only


def variant(key: str) -> tuple[str, ...]:
    """Return what the variants of one icon in one family have in common.

    Font Awesome 5 and 6 count as one family and the order of words does not matter: the newer one renamed
    `shopping-bag` to `bag-shopping`.

    >>> variant("remix:heart-2-fill") == variant("remix:heart-2-line") != variant("remix:heart-3-line")
    True
    >>> variant("fa5s:shopping-bag") == variant("fa6s:bag-shopping")
    True
    """
    family, name = key.split(":")
    digits = [part for part in name.replace("_", "-").split("-") if any(c.isdigit() for c in part)]
    return ("fa" if family.startswith("fa") else family, *sorted([*words(family, name), *digits]))
