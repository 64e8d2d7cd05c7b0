"""Folder trees of the user's own pictures: what each level of folders stands for, and what is below."""

import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

from jax_promptmtl.core.errors import UserError, some
from jax_promptmtl.data.contents import NAMES_FILE, PARTS, Contents, passed_over, read_words
from jax_promptmtl.data.images import SUFFIXES
from jax_promptmtl.data.listing import Listing, listing, loose, subfolders

ROLES = ("task", "part", "class", "*")  # of a level of folders; "*" counts for nothing
EXAMPLE = "root/<task>/<class>/*.jpg"
OWN = re.compile(rf"{re.escape(NAMES_FILE)}|split_.*\.json|.*\.csv")  # files beside folders that are read otherwise


def read(root: pathlib.Path, *, layout: str = "", strict: bool = True) -> Contents:
    """Return what a tree of folders holds; what is below a class's folder, at any depth, is the class's.

    Args:
      root: the uppermost folder.
      layout: what the levels stand for, such as "task/part/class"; "" finds out, see `recognise`.
      strict: whether an empty file is an error.

    Raises:
      UserError: it cannot be told what the levels are; no task, a task without classes, a class without pictures; an
        empty file.
    """
    roles = checked(layout) if layout else recognise(root).split("/")
    found, places, sizes = Contents(), dict[tuple[str, ...], pathlib.Path](), dict[str, int]()
    passed: list[str] = []
    for place, at in walk(root, roles, passed):
        key = (at.get("task", root.resolve().name), at["class"])
        part = PARTS[at["part"].lower()] if "part" in at else "train"
        if places.setdefault((part, *key), place) != place:
            raise UserError(
                f"Folders {str(places[part, *key])!r} and {str(place)!r} are both the class {key[1]!r} of task "
                f"{key[0]!r}; rename or join them."
            )
        files, base = listing(place), place.relative_to(root).as_posix()
        found.add(part, *key, (f"{base}/{name}" for name in files.sizes))
        sizes |= {f"{base}/{name}": size for name, size in files.sizes.items()}
        passed += [f"{base}/{name}" for name in files.passed]
    found.told = any(found.parts["val"].values()) or any(found.parts["test"].values())
    require_pictures(found, places)
    if strict:
        refuse_empty(sizes, root)
    add_words(found, root, roles)
    found.notes += [*passed_over(passed), *superclasses(found, roles)]
    return found


def checked(layout: str) -> list[str]:
    """Return the roles of a layout that a user gave."""
    roles = layout.split("/")
    if set(roles) - set(ROLES) or roles[-1] != "class" or any(roles.count(role) > 1 for role in ROLES[:3]):
        raise UserError(
            f"The layout {layout!r} is none; name what each level of folders is, from the root on: task, part, class, "
            "or * for what counts for nothing, with the class last, such as task/part/class."
        )
    return roles


def walk(
    folder: pathlib.Path, roles: Sequence[str], passed: list[str], at: Mapping[str, str] | None = None, above: str = ""
) -> Iterator[tuple[pathlib.Path, dict[str, str]]]:
    """Yield every class's folder with the names that its path has by role; loose files go to `passed`."""
    passed += [f"{above}{name}" for name in loose(folder) if not OWN.fullmatch(name)]
    places = subfolders(folder)
    if not places:
        what = {"task": "tasks", "class": "classes", "part": "parts"}.get(roles[0], "folders")
        raise UserError(f"Folder {str(folder)!r} has no {what}; expected subfolders {EXAMPLE}.")
    for place in places:
        if roles[0] == "part" and place.name.lower() not in PARTS:
            raise UserError(f"Folder {str(place)!r} is no part of the data; legal names: {', '.join(PARTS)}.")
        names = {**(at or {}), roles[0]: place.name}
        if len(roles) == 1:
            yield place, names
        else:
            yield from walk(place, roles[1:], passed, names, f"{above}{place.name}/")


# --- what the levels are ----------------------------------------------------------------------------------------------


def recognise(root: pathlib.Path) -> str:
    """Return what the levels of a tree stand for, by where pictures are and by the names of parts.

    Returns:
      "class", "task/class", "part/class" or "task/part/class".

    Raises:
      UserError: there is more than one reading, or none; both are named.
    """
    places = filled(root)
    if not places:
        return refuse_bare(root)
    if are_parts(places, root):
        kids = [kid for place in places for kid in filled(place)]
        if not kids:
            raise UserError(f"Folders {names(places)} in {str(root)!r} have no folders of classes; expected {EXAMPLE}.")
        return same_depth(root, kids, "part/class", "part/task/class")
    if all(map(has_pictures, places)):
        if all(filled(place) for place in places):
            refuse_both(root, places[0], "class", "task/class")
        return "class"
    if any(map(has_pictures, places)) and not all(filled(place) for place in places):
        flat = [place for place in places if not filled(place)]
        deep = [place for place in places if place not in flat]
        raise UserError(
            f"Folders {names(flat)} in {str(root)!r} have pictures, {names(deep)} have folders with pictures: either "
            "all are classes (suite.layout=class), or all are tasks (move the pictures into folders of classes)."
        )
    below = {place: filled(place) for place in places}
    if all(are_parts(kids, place) for place, kids in below.items() if kids):
        return same_depth(
            root, [deep for kids in below.values() for kid in kids for deep in filled(kid)], "task/part/class"
        )
    return same_depth(root, [kid for kids in below.values() for kid in kids], "task/class", "task/*/class")


def same_depth(root: pathlib.Path, places: Sequence[pathlib.Path], layout: str, deeper: str = "") -> str:
    """Return the layout if its classes' folders have pictures; refuse it if all of those are further down."""
    if places and not any(map(has_pictures, places)):
        refuse_both(root, places[0], layout, deeper or layout.replace("class", "*/class"))
    if not places:
        raise UserError(
            f"Folder {str(root)!r} has folders called like parts with pictures and no classes; set "
            "suite.layout=task/class if those are classes, else expected root/<task>/<part>/<class>/*.jpg."
        )
    return layout


def refuse_both(root: pathlib.Path, place: pathlib.Path, layout: str, deeper: str) -> None:
    """Refuse a tree that can be read in two ways."""
    where, inner = place.relative_to(root).as_posix(), filled(place)[0].name
    raise UserError(
        f"The tree {str(root)!r} has two readings: {where!r} is a class, and its folders, such as {inner!r}, count for "
        f"nothing (suite.layout={layout}); or {inner!r} is a class (suite.layout={deeper}); set the one that is right."
    )


def refuse_bare(root: pathlib.Path) -> str:
    """Refuse a tree without pictures in folders, unless empty folders let the next look say what is missing."""
    if any(name.lower().endswith(SUFFIXES) for name in loose(root)):
        raise UserError(f"The pictures in {str(root)!r} are in no class; move them to {EXAMPLE}.")
    return "task/class"


def are_parts(places: Sequence[pathlib.Path], parent: pathlib.Path) -> bool:
    """Return whether folders are parts by their names; some parts and other things are refused."""
    parts = [place for place in places if place.name.lower() in PARTS]
    kinds = {PARTS[place.name.lower()] for place in parts}
    if len(kinds) < len(parts):
        raise UserError(f"Folders {names(parts)} in {str(parent)!r} are one part under two names; join them.")
    if len(parts) > 1 and len(parts) < len(places):
        others = [place for place in places if place not in parts]
        raise UserError(
            f"Folders {names(parts)} in {str(parent)!r} are called like parts, {names(others)} are not; move the "
            "others, or say what the levels are with suite.layout, such as task/class."
        )
    return bool(parts) and len(parts) == len(places)


def filled(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the subfolders that are not bare."""
    return [place for place in subfolders(folder) if subfolders(place) or has_pictures(place)]


def has_pictures(place: pathlib.Path) -> bool:
    """Return whether pictures lie in a folder itself."""
    return any(name.lower().endswith(SUFFIXES) for name in loose(place))


def names(places: Sequence[pathlib.Path]) -> str:
    """Return the names of folders as text."""
    return some(place.name for place in places)


# --- what is in them --------------------------------------------------------------------------------------------------


def require_pictures(found: Contents, places: Mapping[tuple[str, ...], pathlib.Path]) -> None:
    """Refuse a class without a picture in any part."""
    for (_, task, class_name), place in places.items():
        if not any(tree.get(task, {}).get(class_name) for tree in found.parts.values()):
            refuse_no_pictures(class_name, task, place)


def class_images(place: pathlib.Path) -> Listing:
    """Return the `listing` of a class's folder, which must not be empty."""
    found = listing(place)
    if not found.sizes:
        refuse_no_pictures(place.name, place.parent.name, place)
    return found


def refuse_no_pictures(class_name: str, task: str, place: pathlib.Path) -> None:
    """Refuse a class's folder without pictures."""
    raise UserError(
        f"Class {class_name!r} of task {task!r} has no images in {str(place)!r}; legal endings: {', '.join(SUFFIXES)}; "
        "add images or remove the folder."
    )


def refuse_empty(sizes: Mapping[str, int], root: pathlib.Path) -> None:
    """Name the files that have no content, before a run comes across them."""
    if empty := [name for name, size in sizes.items() if not size]:
        raise UserError(
            f"Files {some(empty)} in {str(root)!r} are empty (0 bytes) or broken links, or no regular files; restore "
            "or remove them."
        )


def add_words(found: Contents, root: pathlib.Path, roles: Sequence[str]) -> None:
    """Read what classes are called from classnames.txt in the root, and for a task alone in its folder."""
    for task, classes in found.classes().items():
        words: dict[str, str] = {}
        files = [root / NAMES_FILE, *([root / task / NAMES_FILE] if roles[0] == "task" else [])]
        for file in (file for file in files if file.is_file()):
            told, others = read_words(file, classes)
            words |= told
            note = f"{str(file)!r} has lines of no class of the data, such as {others[0]!r}" if others else ""
            if note and note not in found.notes:
                found.notes.append(note)
        found.words[task] = words


def superclasses(found: Contents, roles: Sequence[str]) -> list[str]:
    """Return in words that tasks which share no class may be superclasses of one task."""
    classes = found.classes()
    if len(classes) < 2 or roles[0] != "task" or len(set().union(*classes.values())) < sum(map(len, classes.values())):
        return []
    other = "/".join(["*", *roles[1:]])
    return [
        f"the tasks {some(classes)} have no class in common; each is trained as a task of its own. If they are "
        f"superclasses of one task, set suite.layout={other}"
    ]
