"""What a tree or a table of the user's own pictures holds, before anything is drawn: parts, tasks, classes, words."""

import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from jax_promptmtl.core.errors import UserError, some
from jax_promptmtl.data.listing import count

Tree = dict[str, dict[str, list[str]]]  # task -> class -> paths
Words = dict[str, dict[str, str]]  # task -> class -> what the class is called in texts
PARTS = {  # what folders and cells of a part are called -> the part
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
EVALUATED = {"test": "test", "tune": "val"}  # option `evaluate_on` -> the part
NAMES_FILE = "classnames.txt"
WORDLESS = re.compile(r"\d+|n\d{8}|(class|label|cls|c)[ _-]?\d+", re.IGNORECASE)  # numbers; WordNet's


@dataclass
class Contents:
    """Pictures by part, task and class.

    Attributes:
      parts: "train", "val" and "test" -> their trees; where nothing tells parts all is in "train".
      told: whether folders or a column tell the parts; otherwise shots are drawn, and the rest tests.
      words: task -> class -> what texts call the class, where that is told.
      notes: what to tell the user.
    """

    parts: dict[str, Tree] = field(default_factory=lambda: {"train": {}, "val": {}, "test": {}})
    told: bool = False
    words: Words = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, part: str, task: str, class_name: str, names: Iterable[str]) -> None:
        """Put pictures of a class into a part."""
        self.parts[part].setdefault(task, {}).setdefault(class_name, []).extend(names)

    def classes(self) -> dict[str, list[str]]:
        """Return the tasks with the classes that any part has, all sorted."""
        found: dict[str, set[str]] = {}
        for tree in self.parts.values():
            for task, classes in tree.items():
                found.setdefault(task, set()).update(classes)
        return {task: sorted(found[task]) for task in sorted(found)}

    def part(self, name: str) -> Tree:
        """Return a part with all tasks and classes, sorted; those without pictures are empty."""
        tree = self.parts[name]
        return {t: {c: sorted(tree.get(t, {}).get(c, ())) for c in classes} for t, classes in self.classes().items()}

    def split(self, evaluate_on: str, where: str) -> tuple[Tree, Tree | None]:
        """Return what to draw the shots from, and the pictures that test; None for those that are not drawn.

        Args:
          evaluate_on: "test", or "tune" for the part that tunes; the other one is left alone.
          where: the folder or file, for messages.

        Raises:
          UserError: a task without pictures to test, or one of its classes with such and none to train.
        """
        if not self.told and evaluate_on == "test":
            return self.part("train"), None
        train, test = self.part("train"), self.part(EVALUATED[evaluate_on])
        trains = any(map(len, (names for classes in train.values() for names in classes.values())))
        for task, classes in test.items():
            if not any(classes.values()):
                raise UserError(f"Task {task!r} has no image to {evaluate_on} in {where!r}; give some{self.others()}.")
            for name, pictures in classes.items():
                if pictures and trains and not train[task][name]:
                    raise UserError(
                        f"Class {name!r} of task {task!r} has images to {evaluate_on} and none to train in {where!r}; "
                        "give some."
                    )
        return train, test

    def others(self) -> str:
        """Return what a message says of pictures that could evaluate."""
        there = [option for option, part in EVALUATED.items() if any(self.parts[part].values())]
        return f", or set suite.evaluate_on={there[0]}" if there else ""


def read_words(file: pathlib.Path, classes: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Return {class: words} of a file with lines `class words`, as of ImageNet's, and the lines of no class.

    Args:
      file: a tab or spaces stand between the class and its words.
      classes: those that there are; a class whose name has spaces is told by the longest match.
    """
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the class names {str(file)!r} ({error}); save it as UTF-8.") from None
    known = sorted(classes, key=len, reverse=True)
    words: dict[str, str] = {}
    others: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name = next((name for name in known if re.match(re.escape(name) + r"\s", line)), None)
        if name is None:
            others.append(line.strip())
            continue
        told = " ".join(line[len(name) :].split())
        if not told or words.setdefault(name, told) != told:
            raise UserError(f"Line {number} of {str(file)!r} names {name!r} {'twice' if told else 'by nothing'}.")
    return words, others


def spoken(name: str) -> str:
    """Return a name from a file system as text: bytes that are no UTF-8 are read as Western European.

    >>> spoken("caf\\udce9"), spoken("café")
    ('café', 'café')
    """
    try:
        name.encode()
        return name
    except UnicodeEncodeError:
        return os.fsencode(name).decode("cp1252", "replace")


def speechless(classes: Mapping[str, Iterable[str]], words: Words) -> str:
    """Return in words which classes have names that say nothing to a text tower; "" where none has.

    >>> speechless({"t": ["01", "n01440764", "cat"]}, {"t": {"01": "dog"}})[:64]
    "the names of 1 class say nothing to a text tower ('n01440764'); "
    """
    mute = [c for task, names in classes.items() for c in names if WORDLESS.fullmatch(words.get(task, {}).get(c, c))]
    mute = list(dict.fromkeys(mute))
    if not mute:
        return ""
    number = f"{len(mute):,} class" + ("" if len(mute) == 1 else "es")
    return (
        f"the names of {number} say nothing to a text tower ({some(mute)}); say what they are in {NAMES_FILE} or a "
        "column name"
    )


def passed_over(names: Iterable[str]) -> list[str]:
    """Return in words how many files were passed over, and which; nothing where there are none."""
    names = list(names)
    return [f"passed over {count(len(names), 'file')} that no class has: {some(names)}"] if names else []
