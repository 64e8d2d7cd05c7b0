"""Classify images, or clips, with what was trained; nothing but the work directory and the backbone is needed.

    python -m jax_promptmtl.predict runs/mmap --task=line bell.png folder/
    find . -name '*.png' | python -m jax_promptmtl.predict runs/mmap --task=line --format=csv -

WORKDIR is a work directory or an exported folder; or RUN/prompts_dlm.safetensors, saved by a video job, which needs no
auxiliary models. IMAGES are files, folders (with all below them), CSV tables with a column path and perhaps task, or -
for a list on standard input, one path per line. --task=path takes the task from the image's folders. For what
recognises actions give videos, or folders of frames. What cannot be read costs a line on stderr and exit code 2 at the
end; all others are answered.
"""

import csv
import dataclasses
import itertools
import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import tqdm

from jax_promptmtl.core import command
from jax_promptmtl.core.errors import UserError, pick

if TYPE_CHECKING:
    from jax_promptmtl.inference.image_predictor import Predictor
    from jax_promptmtl.inference.video_predictor import VideoPredictor

Wanted = tuple[str, str | None]  # path, task
BY_PATH = "path"
Row = tuple[str, str, str, list[tuple[str, float]]]  # unit, path, task, (class, probability) pairs best first
WAIT = 2.0  # seconds before a progress bar appears


def collect(model: "Predictor | VideoPredictor", places: Iterable[str], lines: Iterable[str]) -> list[Wanted]:
    """Return the path of every image or video, and its task where a table gives one.

    Args:
      model: knows what is looked for in folders.
      places: files, folders (searched recursively), CSV tables with columns path and perhaps task, "-" for `lines`.
      lines: paths.
    """
    from jax_promptmtl.data import label_table  # imported late: user errors do not wait for it

    wanted: list[Wanted] = []
    for place in places:
        if place == "-":
            wanted += [(line.rstrip("\n"), None) for line in lines if line.strip()]
        elif place.lower().endswith(".csv"):
            home = pathlib.Path(place)
            rows = (row for _, row in label_table.rows(home, needed=("path",)))
            wanted += [
                (str(home.parent / label_table.forward(row["path"], home.parent)), row.get("task")) for row in rows
            ]
        elif pathlib.Path(place).is_dir():
            found, others = model.listing(place)
            if others:
                print(f"note: in {place!r} {others}", file=sys.stderr)
            if not found:
                raise UserError(f"There are no {model.unit}s in the folder {place!r}; give files or another folder.")
            wanted += [(path, None) for path in found]
        else:
            wanted.append((place, None))
    if not wanted:
        raise UserError(f"No {model.unit}s; give files, folders, or - for a list on standard input.")
    return wanted


def assign(model: "Predictor | VideoPredictor", wanted: Iterable[Wanted], task: str | None) -> list[tuple[str, str]]:
    """Return the path and the task of every image.

    Args:
      model: knows the tasks.
      wanted: as of `collect`.
      task: of those that a table does not give one; "path" for the one whose name is a folder of the path.
    """
    found = []
    for path, told in wanted:
        if told is None and task == BY_PATH and BY_PATH not in model.tasks:
            folders = pathlib.Path(path).absolute().parts[:-1]
            told = next((folder for folder in reversed(folders) if folder in model.tasks), None)
            if told is None:
                raise UserError(f"No folder of {path!r} is called like a task: {', '.join(model.tasks)}.")
        found.append((path, model.choose(told or task)))
    return found


@dataclass
class Faults:
    """Unreadable inputs; each is printed when the next one occurs, and the last one becomes the final error."""

    numbers: set[int] = field(default_factory=set)
    last: str = ""

    def add(self, number: int, error: UserError) -> None:
        """Record an image or video that cannot be read."""
        if self.numbers:
            command.complain(self.last)
        self.numbers.add(number)
        self.last = str(error)

    def add_from(self, start: int, number: int, error: UserError) -> None:
        """Record one whose number counts from `start`."""
        self.add(start + number, error)

    def settle(self, unit: str, count: int) -> None:
        """Raise the final error, if there was any."""
        if self.numbers:
            without = f" {len(self.numbers):,} of {count:,} {unit}s have no answer." * (len(self.numbers) > 1)
            raise UserError(self.last + without)


def classify(
    model: "Predictor | VideoPredictor", pairs: Sequence[tuple[str, str]], top: int, faults: Faults
) -> Iterator[Row]:
    """Yield one row per image that can be read, while the next ones are computed; those of a task go together."""
    start = 0
    with tqdm.tqdm(total=len(pairs), unit=model.unit, disable=None, delay=WAIT, file=sys.stderr, leave=False) as bar:
        for task, group in itertools.groupby(pairs, key=lambda pair: pair[1]):
            paths = [path for path, _ in group]
            numbers, failed = iter(range(start, start + len(paths))), partial(faults.add_from, start)
            for answer in model.stream(paths, task, failed):
                for best in answer.top(top):
                    number = next(number for number in numbers if number not in faults.numbers)
                    yield model.unit, paths[number - start], task, best
                bar.update(len(answer.logits))
            start += len(paths)


def write_json(rows: Iterable[Row]) -> None:
    """Print a list with one object per line."""
    start = "[\n"
    try:
        for unit, path, task, best in rows:
            row = {unit: path, "task": task, "class": best[0][0], "probability": round(best[0][1], 6)}
            print(start + json.dumps(row | {"top": {name: round(p, 6) for name, p in best}}), end="", flush=True)
            start = ",\n"
    finally:  # valid JSON even when an error stops it midway
        print("[]" if start[0] == "[" else "\n]")


def write_csv(rows: Iterable[Row]) -> None:
    """Print path, task, class, probability, and further pairs of columns for the next classes."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for number, (unit, path, task, best) in enumerate(rows):
        if number == 0:
            pairs = [(f"class_{place}", f"probability_{place}") for place in range(2, len(best) + 1)]
            writer.writerow([unit, "task", "class", "probability", *itertools.chain(*pairs)])
        writer.writerow([path, task, *itertools.chain(*((name, f"{p:.6f}") for name, p in best))])


def write_table(rows: Iterable[Row]) -> None:
    """Print aligned columns: image, best class, percent, and the next classes."""
    found = list(rows)
    if not found:
        return
    wide = max(len(path) for _, path, _, _ in found)
    name = max(len(best[0][0]) for *_, best in found)
    for _, path, _, best in found:
        first = command.paint(f"{best[0][0]:{name}}", "bold", sys.stdout)
        others = ", ".join(f"{other} {100 * p:.1f}" for other, p in best[1:])
        print(f"{path:{wide}}  {first}  {100 * best[0][1]:5.1f} %", command.paint(others, "dim", sys.stdout), sep="  ")


FORMATS: dict[str, Callable[[Iterable[Row]], None]] = {"csv": write_csv, "json": write_json, "table": write_table}


def names(text: str) -> list[str]:
    """Return the names in a file, one a line, or the parts of a text, in quotes where a comma is in one.

    >>> names('cat, "fox, red"')
    ['cat', 'fox, red']
    """
    try:
        if pathlib.Path(text).is_file():
            return [line.strip() for line in pathlib.Path(text).read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read the class names {text!r} ({error}); give a text file in UTF-8.") from None
    return [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [""])]


def parse(argv: Sequence[str]) -> Any:
    """Read the options."""
    parser = command.parser("predict", __doc__)
    parser.usage = "%(prog)s WORKDIR [options] IMAGES..."
    parser.add_argument("workdir", metavar="WORKDIR", help="work directory or exported folder")
    parser.add_argument("images", metavar="IMAGES", nargs="*", help="files, folders, or -")
    add_options(parser)
    parser.add_argument("--task", help="which task's prompts, where there are several; path: the folder's")
    parser.add_argument("--format", default="table", help="table (default), json or csv")
    parser.add_argument("--megapixels", type=float, help="most of an image; default 178")
    parser.add_argument("--top", type=int, default=3, help="how many classes of each image to print; default 3")
    options = parser.parse_intermixed_args(argv)
    pick(options.format, FORMATS, "format")
    if options.top < 1:
        raise UserError(f"--top is {options.top}; give at least 1.")
    return options


def add_options(parser: Any) -> None:
    """Add the options of everything that loads a predictor."""
    parser.add_argument("--classes", type=names, metavar="A,B,C", help="new class names, or a file with one a line")
    parser.add_argument("--backbone", metavar="PATH", help="weights of the backbone, if they are somewhere else now")


def start(argv: Sequence[str]) -> None:
    """Parse the options and print the predictions."""
    options = parse(argv)
    from jax_promptmtl.inference import trained  # only now: --help and mistakes do not wait for JAX
    from jax_promptmtl.inference.image_predictor import Predictor

    model = trained.load(options.workdir, classes=options.classes, backbone=options.backbone)
    if options.megapixels and isinstance(model, Predictor):
        model.reading = dataclasses.replace(model.reading, pixels=round(1e6 * options.megapixels))
    wanted = collect(model, options.images, sys.stdin)
    try:
        pairs = assign(model, wanted, options.task)
    except UserError as error:
        raise UserError(f"{error} Give it as --task." if options.task is None else str(error)) from None
    faults = Faults()
    FORMATS[options.format](classify(model, pairs, options.top, faults))
    faults.settle(model.unit, len(pairs))


if __name__ == "__main__":
    sys.exit(command.run(start))
