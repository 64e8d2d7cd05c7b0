"""Run the sides of a benchmark cell in turns, each in its own process."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from jax_promptmtl.speed.worker import MARK

PAUSE = 0.2  # seconds between runs: threads of the previous one may still spin


class Died(Exception):
    """A worker ended without an answer."""


class Worker:
    """One side of a cell in its own process.

    Args:
      side: see `worker.make`.
      folder: of the cell.
    """

    def __init__(self, side: str, folder: pathlib.Path):
        hidden = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")  # no virtual devices, and no cached compilations
        environment = {key: value for key, value in os.environ.items() if key not in hidden}
        command = [sys.executable, "-m", "jax_promptmtl.speed.worker", side, str(folder)]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the process)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment | {"JAX_PLATFORMS": "cpu"},
        )

    def answer(self) -> dict[str, Any]:
        """Wait for the next answer."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                found: dict[str, Any] = json.loads(line[len(MARK) :])
                return found
        code = self.process.wait()
        self.log.seek(0)
        last = [line.strip() for line in self.log.read().splitlines() if line.strip()][-1:]
        raise Died(f"exit code {code}: {last[0][:200] if last else 'no message, such as where memory ran out'}")

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command and wait for the answer."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # reported by `answer`
            print(command, file=self.process.stdin, flush=True)
        return self.answer()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self.log.close()


def measure(sides: Sequence[str], folder: pathlib.Path, *, least: int, most: int, seconds: float) -> dict[str, Any]:
    """Run the sides of a cell in turns.

    Args:
      sides: for `worker.make`; the first one is built first.
      folder: of the cell.
      least, most: rounds; a side runs once in each.
      seconds: no new round starts after this time, except for `least`.

    Returns:
      {side: {"wall": [...], "cpu": [...], "peak": bytes, ...}, or {"failed": why}}.
    """
    workers = {side: Worker(side, folder) for side in sides}
    results: dict[str, Any] = {side: {"wall": [], "cpu": []} for side in sides}

    def attempt(side: str, action: str) -> dict[str, Any]:
        try:
            return workers[side].answer() if action == "hello" else workers[side].ask(action)
        except Died as error:
            results[side] = {"failed": str(error)}
            print(f"  {side} failed: {error}", flush=True)
            workers.pop(side).close()
            return {}

    try:
        for action in ("hello", "build"):
            for side in list(workers):
                answer = attempt(side, action)
                results[side] |= {key: value for key, value in answer.items() if key != "seconds"}
        start = time.perf_counter()
        for number in range(most):
            if number >= least and time.perf_counter() - start > seconds:
                break
            alive = list(workers)
            for side in alive[number % max(len(alive), 1) :] + alive[: number % max(len(alive), 1)]:
                time.sleep(PAUSE)
                run = attempt(side, "run")
                add(results[side], run)
        for side in list(workers):
            answer = attempt(side, "quit")
            results[side] |= answer
    finally:
        for worker in workers.values():
            worker.close()
    return results


def add(result: dict[str, Any], run: dict[str, Any]) -> None:
    """Append a run's times to a result; keep the first loss or prediction."""
    for key, value in run.items():
        if key in ("wall", "cpu"):
            result[key].append(value)
        else:
            result.setdefault(key, value)
