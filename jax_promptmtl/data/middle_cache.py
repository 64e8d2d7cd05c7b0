"""Keep what frozen lower halves say of fixed clips, in memory or as ArrayRecord files, exactly.

A file is good for one recipe: the weights' bytes, the form in which the model sees a clip, the middle, the dtype and
the clips; anything else gets another name. States are kept in the dtype in which they were computed, so that a batch
from the cache equals, bit for bit, what the same compiled lower half says of the same clips. Only fixed views can be
kept; for K views of every clip, make a source of K times as many clips.
"""

import hashlib
import json
import math
import os
import pathlib
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
from array_record.python import array_record_module
from tqdm import tqdm

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.data.video_batches import Batch, Clips, ClipSource, all_batches

Lower = Callable[[Batch], Mapping[str, jax.Array]]
Layout = dict[str, tuple[tuple[int, ...], str]]  # key -> shape and dtype of one clip
PLACES = ("memory", "disk")
SPARE = 1.02  # of the file: indices and checksums
CRC = 4  # bytes at the end of a record
VERSION = 1
WAIT = 2.0  # seconds before there is a progress bar


@dataclass(frozen=True)
class Recipe:
    """What a middle state depends on.

    Attributes:
      model: name of the backbone.
      weights: sha256 of its parameters, see `core/hashes.py`.
      view: in which form it sees a clip.
      middle: layers in the lower half.
      dtype: of the tokens.
      clips: which clips, such as a split hash.
    """

    model: str
    weights: str
    view: Mapping[str, Any]
    middle: int
    dtype: str
    clips: str

    def key(self) -> str:
        """Return a name for the file.

        >>> len(Recipe("vit", "ab", {"frames": 16}, 6, "float32", "train").key())
        32
        """
        text = json.dumps({"version": VERSION} | asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def layout_of(lower: Lower, clips: ClipSource) -> Layout:
    """Return shape and dtype of every array that is kept of one clip; nothing runs."""
    shapes: Mapping[str, Any] = jax.eval_shape(lower, clips.take(np.array([0])))
    return {key: (tuple(leaf.shape[1:]), str(leaf.dtype)) for key, leaf in sorted(shapes.items())}


def bytes_per_clip(layout: Layout) -> int:
    """Return the size of what is kept of one clip.

    >>> bytes_per_clip({"tokens": ((1568, 768), "bfloat16")})
    2408448
    """
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in layout.values())


def open_cache(
    lower: Lower,
    clips: ClipSource,
    recipe: Recipe,
    *,
    place: str,
    batch_size: int,
    folder: str = "",
    log: Callable[[str], object] = print,
) -> ClipSource:
    """Return the middle states of clips, computed now or by an earlier run.

    Args:
      lower: compiled function from the arrays of B clips to flat arrays [B, ...].
      clips: all clips.
      recipe: what `lower` is.
      place: `memory`, or `disk` for a file below `folder` that later runs find again.
      batch_size: clips at a time; the last batch is filled up, so that `lower` compiles once.
      folder: directory of the files; created where it does not exist.
      log: prints a line about cost and reuse of a file.

    Raises:
      UserError: no room.
    """
    layout, count = layout_of(lower, clips), len(clips)
    size = bytes_per_clip(layout)
    path = pathlib.Path(folder) / f"{recipe.key()}.array_record"
    on_disk = pick(place, PLACES, "place of the cache") == "disk"
    cost = f"cache of {recipe.model}: {count:,} clips x {human(size)} = {human(size * count)}"
    if on_disk and (found := reopen(path, layout, count)) is not None:
        log(f"{cost}, found in {str(path)!r}")
        return found
    require_room(math.ceil(size * count * (SPARE if on_disk else 1)), path.parent if on_disk else None)
    states = compute(lower, clips, batch_size, recipe.model)
    if not on_disk:
        return Clips(stack(states, layout, count))
    log(f"{cost} in {str(path)!r}; every 100 clips/s of training read {human(100 * size)}/s")
    write(path, states, layout, recipe, count)
    found = reopen(path, layout, count)
    if found is None:
        raise UserError(f"The cache {str(path)!r} cannot be read back; look at that disk or use cache='memory'.")
    return found


def compute(lower: Lower, clips: ClipSource, batch_size: int, name: str) -> Iterator[Batch]:
    """Yield the states of all clips in order, without the filling; on a terminal a bar shows what takes longer."""
    with tqdm(desc=f"{name} states", total=len(clips), unit="video", delay=WAIT, disable=None, leave=False) as bar:
        for batch in all_batches([clips], batch_size=batch_size):
            real = batch["weight"] > 0
            yield {key: np.asarray(value)[real] for key, value in jax.device_get(lower(batch)).items()}
            bar.update(int(real.sum()))


def stack(states: Iterator[Batch], layout: Layout, count: int) -> Batch:
    """Return all states as arrays, filled batch by batch."""
    arrays = {key: np.empty((count, *shape), np.dtype(dtype)) for key, (shape, dtype) in layout.items()}
    start = 0
    for batch in states:
        stop = start + len(next(iter(batch.values())))
        for key, value in batch.items():
            arrays[key][start:stop] = value
        start = stop
    return arrays


def human(size: float) -> str:
    """Return a number of bytes with its unit.

    >>> human(2408448), human(4.07e11)
    ('2.41 MB', '407 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.4g} TB"


def free_memory() -> int:
    """Return the bytes of memory that processes may still have."""
    info = pathlib.Path("/proc/meminfo")
    if info.exists():
        line = next(line for line in info.read_text().splitlines() if line.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def free_disk(folder: pathlib.Path) -> int:
    """Return the bytes that fit on the disk of a folder, which need not exist yet."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free


def require_room(size: int, folder: pathlib.Path | None) -> None:
    """Refuse where the cache would not fit on the disk of `folder`, or in memory where that is `None`."""
    free = free_memory() if folder is None else free_disk(folder)
    if size > free:
        where, other = ("memory", "disk") if folder is None else (f"the disk of {str(folder)!r}", "off")
        raise UserError(f"The cache needs {human(size)}, and {where} has {human(free)}; take fewer clips or {other!r}.")


# --- files: one record per clip, its arrays in the order of their keys, then the CRC-32 of all that ---


def write(path: pathlib.Path, states: Iterator[Batch], layout: Layout, recipe: Recipe, count: int) -> None:
    """Write a file under another name, then rename it; the JSON beside it, written last, says that it is whole."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        writer = array_record_module.ArrayRecordWriter(str(draft), "group_size:1")
        for batch in states:
            for row in range(len(next(iter(batch.values())))):
                writer.write(to_record(batch, row, layout))
        writer.close()
        draft.replace(path)
    except OSError as error:
        raise UserError(f"Cannot write the cache {str(path)!r}: {error.strerror}; give another folder.") from error
    content = {"recipe": asdict(recipe), "layout": layout, "count": count, "bytes": path.stat().st_size}
    path.with_suffix(".json").write_text(json.dumps(content, indent=1, default=str) + "\n")


def to_record(batch: Batch, row: int, layout: Layout) -> bytes:
    """Return the bytes of one clip."""
    body = b"".join(np.ascontiguousarray(batch[key][row]).tobytes() for key in layout)
    return body + zlib.crc32(body).to_bytes(CRC, "little")


def reopen(path: pathlib.Path, layout: Layout, count: int) -> "Records | None":
    """Return the records of a whole file; `None` where it is missing, torn, damaged or of another layout."""
    try:
        content = json.loads(path.with_suffix(".json").read_text())
        if content["bytes"] != path.stat().st_size or content["count"] != count:
            return None
        if {key: (tuple(shape), dtype) for key, (shape, dtype) in content["layout"].items()} != layout:
            return None
        records = Records(str(path), layout, count)
        return records if records.whole() else None
    except (OSError, ValueError, KeyError, RuntimeError, IndexError):
        return None


class Records:
    """The states of a file, read when asked for."""

    def __init__(self, path: str, layout: Layout, count: int):
        self.path, self.layout, self.count = path, layout, count
        self.reader = array_record_module.ArrayRecordReader(path)

    def __len__(self) -> int:
        return self.count

    def take(self, indices: np.ndarray) -> Batch:
        """Return the states of the clips at the indices."""
        rows = [self.split(record) for record in self.reader.read([int(index) for index in indices])]
        return {key: np.stack([row[key] for row in rows]) for key in self.layout}

    def split(self, record: bytes) -> Batch:
        """Return the arrays of one record."""
        body, crc = record[:-CRC], record[-CRC:]
        if zlib.crc32(body).to_bytes(CRC, "little") != crc:
            raise UserError(f"A record of the cache {self.path!r} is damaged; delete the file, and it is made again.")
        arrays, start = {}, 0
        for key, (shape, dtype) in self.layout.items():
            size = math.prod(shape) * np.dtype(dtype).itemsize
            arrays[key] = np.frombuffer(body[start : start + size], np.dtype(dtype)).reshape(shape)
            start += size
        return arrays

    def whole(self) -> bool:
        """Return whether every record is there and intact; reads the file once."""
        if self.reader.num_records() != self.count:
            return False
        records = (self.reader.read([index])[0] for index in range(self.count))
        return all(zlib.crc32(record[:-CRC]).to_bytes(CRC, "little") == record[-CRC:] for record in records)
