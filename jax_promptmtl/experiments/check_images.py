"""What is wrong with an image suite: files, labels, what decoding assumes, and what the run would refuse."""

import hashlib
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jax_promptmtl.core.errors import UserError, some
from jax_promptmtl.data import images, suites
from jax_promptmtl.data.assumptions import assumptions
from jax_promptmtl.data.images import FileSource
from jax_promptmtl.data.listing import count as number_of
from jax_promptmtl.data.listing import listing
from jax_promptmtl.data.source import Source, Suite, Task
from jax_promptmtl.data.suites import drawn
from jax_promptmtl.experiments.findings import Findings, most, watch
from jax_promptmtl.experiments.image import tune

OWN = ("folder",)  # suites of own data, where pictures that train and test are a mistake
Pictures = dict[str, list[tuple[str, str, int, str]]]  # digest -> (task, part, label, name)


def check_suite(options: Mapping[str, Any], found: Findings, *, fast: bool) -> Suite | None:
    """Look at an image suite, and return it if there is one."""
    suite = build_suite(options, found)
    if suite is None:
        look_below(str(options.get("root", "")), found, fast=fast)
        return None
    left_out = most([f"{name} cannot be read" for name in suite.left_out])
    (found.problems if options.get("strict", True) else found.remarks).extend(left_out)
    seen: Pictures = {}
    found.remarks += suite.notes
    few = drawn.fewer(suite, options.get("shots", 0))
    found.remarks += [note for note in (few, drawn.untested(suite)) if note]
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
    return suite


def rehearse(config: Mapping[str, Any], suite: Suite, found: Findings) -> int:
    """Note what the run of the config would refuse, and return the side of the model's pictures; 0 if unknown."""
    size = 0
    try:
        job = tune.on_trial(config, suite)
        size = job.preprocess.size
        tune.refuse(job)
    except tune.NoBackbone as error:
        found.remarks.append(f"texts and batches were not tried, as the backbone cannot be loaded: {error}")
    except UserError as error:
        found.problems.append(str(error))
    return size


def look_at_headers(suite: Suite, size: int) -> list[str]:
    """Return in words what decoding loses or assumes; `size` is the side of the model's pictures, 0 if unknown."""
    seen: dict[str, list[str]] = {}
    sources = [source for task in suite.tasks for source in (task.train, task.test)]
    for source in (source for source in sources if isinstance(source, FileSource)):
        for index in range(len(source)):
            try:
                for words in assumptions(source.place(index), source.reading, size):
                    seen.setdefault(words, []).append(source.names[index])
            except UserError:
                continue  # named where all is decoded
    return [f"{number_of(len(names), 'image')} {words}: {some(names)}" for words, names in seen.items()]


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
