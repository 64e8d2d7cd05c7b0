"""Records: one JSON file per run of a benchmark, complete or absent, from which every table and figure is made.

A record holds what was run (config, seed, split, backbone, versions, git state), the results (correct answers per task
and per test image, as bits), the cost, and whether the run finished or failed. A killed run leaves no record.
"""

import base64
import gzip
import hashlib
import json
import pathlib
import subprocess
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.files import write_whole

SCHEMA = 1
STATES = ("done", "failed")
Record = dict[str, Any]
KEYS = {  # required keys of every record with their types
    "schema": int,
    "id": str,
    "status": str,
    "method": str,
    "title": str,
    "seed": int,
    "config": dict,
    "written": str,
}
CELL: dict[str, dict[str, type]] = {
    "images": {"suite": str, "shots": int},
    "video": {"task": str},
}  # required by kind; without one, images
MEASURED: dict[str, dict[str, type]] = {  # additional keys of a finished record
    "images": {
        "tasks": list,
        "count": list,
        "correct": list,
        "right": str,
        "drawing": str,
        "trainable": int,
        "total": int,
        "split_hash": str,
    },
    "video": {"metric": str, "scores": dict, "curve": list, "trainable": int, "primary": int, "loaded": int},
}


def identify(name: str, content: Any) -> str:
    """Return the id of a run: a readable name and a hash, 10 hex digits, of everything that determines the result.

    >>> identify("mmap", {"seed": 0}) == identify("mmap", {"seed": 1})
    False
    """
    text = json.dumps(content, sort_keys=True, default=list)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def save(path: pathlib.Path, record: Mapping[str, Any]) -> None:
    """Write a record atomically: it is complete on disk, or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(record, allow_nan=False) + "\n")


def describe_fault(record: Any) -> str:
    """Describe the fault in a record's content; "" if there is none.

    >>> describe_fault({"schema": 99})
    'it has schema 99, and this version reads 1'
    >>> describe_fault([])
    'it is no record of a run'
    """
    if not isinstance(record, dict) or "schema" not in record:
        return "it is no record of a run"
    if record["schema"] != SCHEMA:
        return f"it has schema {record['schema']}, and this version reads {SCHEMA}"
    kind = kind_of(record)
    if kind not in CELL:
        return f"its kind is {kind!r}, not one of {', '.join(CELL)}"
    wanted = KEYS | CELL[kind] | (MEASURED[kind] if record.get("status") == "done" else {})
    for key, sort in wanted.items():
        if not isinstance(record.get(key), sort):
            return f"its {key!r} is missing or of another type"
    if record["status"] not in STATES:
        return f"its status is {record['status']!r}, not one of {', '.join(STATES)}"
    return _count_fault(record) if (kind, record["status"]) == ("images", "done") else ""


def kind_of(record: Mapping[str, Any]) -> str:
    """Return whether a record is of images or videos.

    >>> kind_of({}), kind_of({"kind": "video"})
    ('images', 'video')
    """
    kind: str = record.get("kind", "images")
    return kind


def _count_fault(record: Record) -> str:
    """Describe a contradiction between a record's numbers; "" if there is none."""
    count, correct = record["count"], record["correct"]
    if not len(record["tasks"]) == len(count) == len(correct) > 0:
        return "its tasks, count and correct differ in length"
    try:
        rows, number = right(record), len(drawings(record))
    except (ValueError, zlib.error):
        return "its bits per test image cannot be read"
    if [int(row.sum()) for row in rows] != correct or number != sum(count):
        return "its bits per test image contradict its counts"
    return ""


def read(path: pathlib.Path) -> Record | None:
    """Load the record at a path; `None` if missing or faulty."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return None if describe_fault(record) else record


def read_all(place: pathlib.Path) -> tuple[list[Record], list[str]]:
    """Read all records of a folder of runs, or of a file that `pack` wrote.

    Args:
      place: a folder with `records/*.json`, or a file `.jsonl` or `.jsonl.gz`.

    Returns:
      The records sorted by id, and a warning on each that was ignored.

    Raises:
      UserError: the place does not exist or has no readable record.
    """
    if place.is_dir():
        named = [(str(path), path.read_bytes()) for path in sorted((place / "records").glob("*.json"))]
    elif place.is_file():
        named = [(f"{place}, line {number}", line) for number, line in enumerate(_lines(place), 1)]
    else:
        raise UserError(f"There is no folder of runs and no file of records {str(place)!r}; give one of them.")
    records, ignored = {}, []
    for name, text in named:
        try:
            record = json.loads(text)
            reason = describe_fault(record)
        except ValueError:
            record, reason = None, "it is not JSON, or cut short"
        if reason:
            ignored.append(f"Ignored {name}: {reason}.")
        else:
            records[record["id"]] = record
    return [records[key] for key in sorted(records)], ignored


def _lines(path: pathlib.Path) -> list[bytes]:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"Cannot read the file of records {str(path)!r}: {error}; pack it again.") from None


def pack(path: pathlib.Path, records: Iterable[Record]) -> None:
    """Write records into one file of JSON lines, compressed if it ends in .gz; equal records give equal bytes."""
    text = "".join(json.dumps(record, sort_keys=True, separators=(",", ":")) + "\n" for record in records)
    data = gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def pack_bits(values: np.ndarray) -> str:
    """Encode bools as text, eight per byte before base64.

    >>> unpack_bits(pack_bits(np.array([True, False, True])), 3).tolist()
    [True, False, True]
    """
    return base64.b64encode(np.packbits(np.asarray(values, bool)).tobytes()).decode()


def unpack_bits(text: str, count: int) -> np.ndarray:
    """Decode `pack_bits`; raises ValueError if the count differs."""
    packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    if len(packed) != -(-count // 8):
        raise ValueError(f"{len(packed)} bytes for {count} bits")
    return np.unpackbits(packed, count=count).astype(bool)


def pack_numbers(values: np.ndarray) -> str:
    """Encode non-negative integers as text.

    >>> unpack_numbers(pack_numbers(np.array([0, 70000]))).tolist()
    [0, 70000]
    """
    return base64.b64encode(zlib.compress(np.asarray(values, "<u4").tobytes(), 9)).decode()


def unpack_numbers(text: str) -> np.ndarray:
    """Decode `pack_numbers`."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), "<u4").astype(int)


def right(record: Record) -> list[np.ndarray]:
    """Return the correctness of each answer, bool[count] per task."""
    flat = unpack_bits(record["right"], sum(record["count"]))
    return np.split(flat, np.cumsum(record["count"])[:-1])


def drawings(record: Mapping[str, Any]) -> np.ndarray:
    """Return the drawing shown in each test image, int[all test images]."""
    return unpack_numbers(record["drawing"])


def accuracy(record: Record) -> list[float]:
    """Return the accuracy of each task in percent.

    >>> accuracy({"correct": [1, 3], "count": [2, 4]})
    [50.0, 75.0]
    """
    return [100 * c / n for c, n in zip(record["correct"], record["count"], strict=True)]


def score(record: Record) -> float:
    """Return the score of a finished record in percent: the average over tasks, or the metric on test videos.

    >>> score({"correct": [1, 3], "count": [2, 4]})
    62.5
    """
    if kind_of(record) == "video":
        measured: float = record["scores"]["dynamic"]["test"][record["metric"]]
        return measured
    return float(np.mean(accuracy(record)))


def per_drawing(correct: Sequence[np.ndarray], drawing: Sequence[np.ndarray]) -> list[float]:
    """Return the accuracy per task in percent with equal weight for every drawing, however often it is shown.

    >>> per_drawing([np.array([True, True, False])], [np.array([0, 0, 1])])
    [50.0]
    """
    values = []
    for row, numbers in zip(correct, drawing, strict=True):
        _, where = np.unique(numbers, return_inverse=True)
        values.append(100 * float((np.bincount(where, row) / np.bincount(where)).mean()))
    return values


def git_state(folder: pathlib.Path) -> dict[str, Any] | None:
    """Return commit and whether files differ from it, or `None` where the folder is not under git's control."""
    try:
        tracked = _git(folder, "ls-files", "--error-unmatch", "reporting/records.py")
        commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changes)} if tracked else None


def _git(folder: pathlib.Path, *command: str) -> str:
    arguments = ["git", "-C", str(folder), *command]
    return subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def now() -> str:
    """Return the time as ISO 8601 text, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
