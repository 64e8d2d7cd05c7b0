"""What is wrong with the data of a config: missing and broken files, pictures that train and test, counts."""

import hashlib
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import images, suites, videos
from jax_promptmtl.data.listing import listing, some
from jax_promptmtl.data.source import Source, Suite, Task
from jax_promptmtl.data.suites import drawn
from jax_promptmtl.data.videos import soundness
from jax_promptmtl.data.videos.index import Example, VideoSet, spell

LISTED = 20  # problems of a kind that are named one by one
OWN = ("folder",)  # suites of own data, where pictures that train and test are a mistake
Pictures = dict[str, list[tuple[str, str, int, str]]]  # digest -> (task, part, label, name)


@dataclass
class Findings:
    """What a look at the data found: text to print, remarks, and problems."""

    text: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def check(config: Mapping[str, Any], *, fast: bool = False) -> Findings:
    """Look at the data that a config names: image suites in `suite` or `suites`, or a video data set in `data`.

    Raises:
      UserError: it names none.
    """
    found = Findings()
    if "data" in config:
        check_videos(dict(config["data"]), found, fast=fast)
        return found
    named = [config["suite"]] if "suite" in config else list(config.get("suites", {}).values())
    if not named:
        raise UserError(
            "The config has neither `suite` (images) nor `data` (videos) to look at; made-up data needs no check."
        )
    for options in named:
        check_suite(dict(options), found, fast=fast)
    return found


def watch(steps: Iterable, count: int) -> Iterable:
    """Show the progress of many steps, on a terminal only."""
    return tqdm(steps, "opening files", count, mininterval=1, disable=None)


def most(lines: Sequence[str]) -> list[str]:
    """Return the first lines, and how many others there are.

    >>> len(most(["x"] * 30)), most(["x"] * 30)[-1]
    (21, '... and 10 others')
    """
    more = len(lines) - LISTED
    return [*lines[:LISTED], *([f"... and {more:,} others"] if more > 0 else [])]


# --- images ---


def check_suite(options: Mapping[str, Any], found: Findings, *, fast: bool) -> None:
    """Look at an image suite."""
    suite = build_suite(options, found)
    if suite is None:
        look_below(str(options.get("root", "")), found, fast=fast)
        return
    left_out = most([f"{name} cannot be read" for name in suite.left_out])
    (found.problems if options.get("strict", True) else found.remarks).extend(left_out)
    seen: Pictures = {}
    if suite.unused:
        found.remarks.append(f"not used: {drawn.late(suite.unused)}")
    for task in suite.tasks:
        parts = {"train": task.train, "test": task.test}
        found.text.append(
            f"{task.name}: {len(task.class_names)} classes, "
            + ", ".join(f"{len(source):,} images to {part}" for part, source in parts.items())
        )
        if not fast:
            counts = {part: look_into(task, part, source, seen, found) for part, source in parts.items()}
            found.text += [f"  {line}" for line in class_lines(task.class_names, counts)]
    told = found.problems if options.get("name") in OWN else found.remarks
    told += most(list(same_pictures(seen)))


def build_suite(options: Mapping[str, Any], found: Findings) -> Suite | None:
    """Return the suite, if need be a part of it, and note what is wrong with it."""
    for strict in (None, False):
        try:
            return suites.build(options if strict is None else {**options, "strict": strict})
        except UserError as error:
            if strict is None:
                found.problems.append(str(error))
            if not options.get("strict") or options.get("name") in OWN:
                return None
    return None


def look_below(root: str, found: Findings, *, fast: bool) -> None:
    """Open all pictures below a folder of which no suite could be made."""
    if not pathlib.Path(root).expanduser().is_dir():
        return
    base = pathlib.Path(root).expanduser()
    files = listing(base).sizes
    places = Counter(name.rpartition("/")[0] or "." for name in files)
    found.text += [f"{place}: {count:,} images" for place, count in sorted(places.items())]
    faults = [f"{name} is empty (0 bytes) or a broken link" for name, size in files.items() if not size]
    for name in watch([name for name, size in files.items() if size and not fast], len(files)):
        try:
            images.decode(base / name)
        except UserError as error:
            faults.append(str(error))
    found.problems += most(faults)


def look_into(task: Task, part: str, source: Source, seen: Pictures, found: Findings) -> Counter:
    """Open every picture of a part and return the numbers of its labels."""
    counts: Counter = Counter()
    faults = []
    for index in watch(range(len(source)), len(source)):
        try:
            example = source[index]
        except UserError as error:
            faults.append(str(error))
            continue
        counts[example["label"]] += 1
        image = example["image"]
        key = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()
        seen.setdefault(key, []).append((task.name, part, int(example["label"]), source.names[index]))
    found.problems += most(faults)
    return counts


def class_lines(names: Sequence[str], counts: Mapping[str, Counter]) -> list[str]:
    """Return the numbers of images of each class, as many classes to a line as fit.

    >>> class_lines(["cat", "dog"], {"train": Counter([0, 0]), "test": Counter([1])})
    ['cat 2 + 0, dog 0 + 1  (train + test)']
    """
    lines, words = [], [f"{name} {' + '.join(str(c[i]) for c in counts.values())}" for i, name in enumerate(names)]
    line = ""
    for word in words:
        if line and len(line) + len(word) > 96:
            lines.append(line + ",")
            line = ""
        line += f"{', ' if line else ''}{word}"
    return [*lines, f"{line}  ({' + '.join(counts)})"]


def same_pictures(seen: Pictures) -> Iterable[str]:
    """Return in words which pictures train and test in a task, or have two labels there."""
    for places in seen.values():
        tasks = {task for task, *_ in places}
        for task in sorted(tasks):
            here = [(part, label, name) for other, part, label, name in places if other == task]
            one = {part: name for part, _, name in reversed(here)}
            if len(one) > 1:
                yield f"The same picture trains and tests in task {task!r}: {one['train']!r} and {one['test']!r}"
            elif len({label for _, label, _ in here}) > 1:
                names = [name for _, _, name in here]
                yield f"The same picture has two labels in task {task!r}: {some(names)}"


# --- videos ---


def check_videos(options: Mapping[str, Any], found: Findings, *, fast: bool) -> None:
    """Look at a video data set."""
    try:
        data = videos.read(options)
    except UserError as error:
        found.problems.append(str(error))
        return
    found.text += count_lines(data)
    found.remarks += data.notes
    wrong = [f"{data.name} has {misfit} as published" for misfit in data.misfits()]
    (found.problems if options.get("strict", True) else found.remarks).extend(wrong)
    gone = videos.missing(data)
    for part, examples in gone.items():
        if examples:
            names = sorted({example.video for example in examples})
            found.problems.append(
                f"{len(names):,} of the {part} videos are not whole in {str(data.root)!r}: {some(names)}; get "
                f"them from {data.home}"
            )
    if not fast:
        open_videos(data, {example.video for examples in gone.values() for example in examples}, found)


def count_lines(data: VideoSet) -> list[str]:
    """Return the counts of a set beside the published ones."""
    counts = data.counts()
    lines = [f"{data.name} in {str(data.root)!r}, for {data.task}", f"{'':<10}{'found':>10}{'published':>16}"]
    for what, count in counts.items():
        published = spell(data.published[what]) if what in data.published else "-"
        lines.append(f"{what:<10}{count:>10,}{published:>16}")
    return [*lines, *(f"{part}: {len(examples):,} examples" for part, examples in data.parts.items())]


def open_videos(data: VideoSet, gone: set[str], found: Findings) -> None:
    """Open the files that are there, and note which are broken or in both parts."""
    groups: dict[str, list[Example]] = {}
    for example in (example for examples in data.parts.values() for example in examples):
        if example.video not in gone:
            groups.setdefault(example.video, []).append(example)
    looks = dict(zip(groups, soundness.look_at_all(data, list(groups.values()), watch), strict=True))
    found.problems += most([look.fault for look in looks.values() if look.fault])
    if uneven := [video for video, look in looks.items() if look.uneven]:
        found.remarks.append(
            f"{len(uneven):,} videos have a variable frame rate, such as {uneven[0]}; frames are read by their numbers"
        )
    if lengths := {video: look.length for video, look in looks.items() if not look.fault}:
        video = min(lengths, key=lengths.__getitem__)
        unit = "features" if data.channels else "frames"
        found.remarks.append(f"the shortest has {lengths[video]:,} {unit}: {video}")
    found.remarks += most([f"{a} trains and {b} tests, but the files are equal" for a, b in soundness.twins(data)])
