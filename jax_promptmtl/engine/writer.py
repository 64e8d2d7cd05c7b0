"""Logs of a run: JSON lines, TensorBoard scalars and a progress bar, on process 0 only."""

import json
import os
import pathlib
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import tqdm

from jax_promptmtl.core.files import write_whole
from jax_promptmtl.engine.events import Events

Record = dict[str, Any]


def read(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Yield the records of a JSON-lines file, none if it is missing; a last line truncated by a crash is dropped."""
    if not pathlib.Path(path).exists():
        return
    for line in pathlib.Path(path).read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def line_of(record: Record) -> str:
    """Serialise a record as one JSON line; arrays become lists.

    >>> line_of({"gram": np.eye(1)})
    '{"gram": [[1.0]]}\\n'
    """
    return json.dumps(record, default=lambda value: np.asarray(value).tolist()) + "\n"


class Tally:
    """Running count and CRC-32 of JSON lines, to verify them on resume."""

    def __init__(self, records: Iterable[Record] = ()):
        self.count = self.crc = 0
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Update the count and checksum with one record."""
        self.count, self.crc = self.count + 1, zlib.crc32(line_of(record).encode(), self.crc)

    def __call__(self) -> dict[str, int]:
        """Return what a checkpoint keeps.

        >>> Tally([{"step": 1}])() == Tally([{"step": 2}])()
        False
        """
        return {"count": self.count, "crc32": self.crc}


class Lines:
    """An append-only JSON-lines file; records that a resumed run will rewrite are removed first."""

    def __init__(self, path: str | os.PathLike[str], keep: Callable[[Record], bool]):
        """Open `path`; an existing file is first rewritten atomically with the records that `keep` accepts."""
        self.path = pathlib.Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.kept = [record for record in read(self.path) if keep(record)]
        write_whole(self.path, "".join(map(line_of, self.kept)))
        self._file = self.path.open("a")

    def write(self, record: Record) -> None:
        """Append one record and flush, so that a kill loses none."""
        self._file.write(line_of(record))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Writer:
    """The logs of one stage of a run.

    `metrics.jsonl` is shared by the stages of a workdir and holds no timings, so that a repeated or resumed run writes
    the same bytes. TensorBoard also gets the throughput.
    """

    def __init__(self, workdir: str | os.PathLike[str], stage: str, *, step: int, evaluated: bool):
        """Open the logs of a run at `step`; records of later steps are removed.

        Args:
          workdir: gets `metrics.jsonl`, `observed/<stage>.jsonl` and `tensorboard/<stage>/`.
          stage: name of this training.
          step: of the restored checkpoint; 0 for a new run.
          evaluated: whether the checkpoint holds the evaluation of this step; else it will be repeated.
        """
        self.stage = stage
        self.observations: list[Record] = []
        self._files: list[Any] = []
        workdir = pathlib.Path(workdir)

        def keep(record: Record) -> bool:
            again = record["step"] > step or (record["step"] == step and "evaluation" in record and not evaluated)
            return record["stage"] != stage or not again

        if jax.process_index() != 0:  # `keep` gives the same before and after process 0 rewrites the file
            self.observations = [record for record in read(workdir / "observed" / f"{stage}.jsonl") if keep(record)]
            self.tally = Tally(self.observations)
            return
        metrics = Lines(workdir / "metrics.jsonl", keep)
        observed = Lines(workdir / "observed" / f"{stage}.jsonl", keep)
        board = Events(workdir / "tensorboard" / stage, purge=step + 1)
        self.observations, self.tally = observed.kept, Tally(observed.kept)
        self._files = [metrics, observed, board]

    def scalars(self, step: int, values: Mapping[str, float], **clock: float) -> None:
        """Write training metrics; `clock` values, such as images per second, go to TensorBoard only."""
        if self._files:
            self._files[0].write({"stage": self.stage, "step": step, **values})
            self._board(step, {**values, **clock})

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Write the evaluation metrics at `step`."""
        if self._files:
            self._files[0].write({"stage": self.stage, "step": step, "evaluation": dict(values)})
            self._board(step, {f"evaluation/{name}": value for name, value in values.items()})

    def observed(self, step: int, values: Mapping[str, Any]) -> None:
        """Write arrays by name, in full precision."""
        record = {"stage": self.stage, "step": step, "observed": dict(values)}
        self.tally.add(record)
        if self._files:
            self._files[1].write(record)

    def close(self) -> None:
        """Close all files."""
        for file in self._files:
            file.close()

    def _board(self, step: int, values: Mapping[str, float]) -> None:
        self._files[2].scalars(step, values)
        if run := tracked():
            named = {f"{self.stage}/{name}": value for name, value in values.items()}
            run.log({f"{self.stage}/step": step} | named)


def tracked() -> Any:
    """Return the open W&B run of this process, or None; see `track`."""
    return getattr(sys.modules.get("wandb"), "run", None)


def progress(name: str, *, step: int, total: int) -> tqdm.tqdm:
    """Return a progress bar at `step` of `total`, on stderr, shown only on a terminal."""
    return tqdm.tqdm(
        desc=name,
        initial=step,
        total=total,
        unit="step",
        file=sys.stderr,
        dynamic_ncols=True,
        disable=jax.process_index() != 0 or not sys.stderr.isatty(),
    )
