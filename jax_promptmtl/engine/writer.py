"""What a run leaves to read: JSON lines, TensorBoard scalars and a progress bar, on process 0 only."""

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
    """Yield the records of a file of JSON lines, if it exists; a last line cut short by a crash is left out."""
    if not pathlib.Path(path).exists():
        return
    for line in pathlib.Path(path).read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def line_of(record: Record) -> str:
    """Return a record as its line; arrays become lists.

    >>> line_of({"gram": np.eye(1)})
    '{"gram": [[1.0]]}\\n'
    """
    return json.dumps(record, default=lambda value: np.asarray(value).tolist()) + "\n"


class Tally:
    """Number and CRC-32 of lines, to find out later whether they are the same."""

    def __init__(self, records: Iterable[Record] = ()):
        self.count = self.crc = 0
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Count one more record."""
        self.count, self.crc = self.count + 1, zlib.crc32(line_of(record).encode(), self.crc)

    def __call__(self) -> dict[str, int]:
        """Return what a checkpoint keeps.

        >>> Tally([{"step": 1}])() == Tally([{"step": 2}])()
        False
        """
        return {"count": self.count, "crc32": self.crc}


class Lines:
    """A file of JSON lines to append to; records that a resumed run will write again are first taken out."""

    def __init__(self, path: str | os.PathLike[str], keep: Callable[[Record], bool]):
        """Open `path`; if it exists, it is rewritten in one move with only the records that `keep` accepts."""
        self.path = pathlib.Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.kept = [record for record in read(self.path) if keep(record)]
        write_whole(self.path, "".join(map(line_of, self.kept)))
        self._file = self.path.open("a")

    def write(self, record: Record) -> None:
        """Append one record, so that a killed process has lost none."""
        self._file.write(line_of(record))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Writer:
    """The records of one stage of a run.

    `metrics.jsonl` is shared by the stages of a workdir and holds nothing that depends on the clock, so that a run
    repeated or resumed writes the same bytes. TensorBoard has the speed as well.
    """

    def __init__(self, workdir: str | os.PathLike[str], stage: str, *, step: int, evaluated: bool):
        """Open the files of a run that has done `step` steps; records of later steps are taken out.

        Args:
          workdir: gets `metrics.jsonl`, `observed/<stage>.jsonl` and `tensorboard/<stage>/`.
          stage: name of this training.
          step: of the restored checkpoint; 0 for a new run.
          evaluated: whether the checkpoint knows the evaluation at this very step; else it is going to be repeated.
        """
        self.stage = stage
        self.observations: list[Record] = []
        self._files: list[Any] = []
        workdir = pathlib.Path(workdir)

        def keep(record: Record) -> bool:
            again = record["step"] > step or (record["step"] == step and "evaluation" in record and not evaluated)
            return record["stage"] != stage or not again

        if jax.process_index() != 0:  # reads what process 0 keeps, whether it has been rewritten by now or not
            self.observations = [record for record in read(workdir / "observed" / f"{stage}.jsonl") if keep(record)]
            self.tally = Tally(self.observations)
            return
        metrics = Lines(workdir / "metrics.jsonl", keep)
        observed = Lines(workdir / "observed" / f"{stage}.jsonl", keep)
        board = Events(workdir / "tensorboard" / stage, purge=step + 1)
        self.observations, self.tally = observed.kept, Tally(observed.kept)
        self._files = [metrics, observed, board]

    def scalars(self, step: int, values: Mapping[str, float], **clock: float) -> None:
        """Write the training metrics at `step`; the `clock` values, such as images per second, only to TensorBoard."""
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
    """Return the W&B run that this process has open, if it has one; see `track`."""
    return getattr(sys.modules.get("wandb"), "run", None)


def progress(name: str, *, step: int, total: int) -> tqdm.tqdm:
    """Return a progress bar that has done `step` of `total` steps: on stderr if that is a terminal, else none."""
    return tqdm.tqdm(
        desc=name,
        initial=step,
        total=total,
        unit="step",
        file=sys.stderr,
        dynamic_ncols=True,
        disable=jax.process_index() != 0 or not sys.stderr.isatty(),
    )
