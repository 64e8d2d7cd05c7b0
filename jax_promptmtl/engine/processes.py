"""Several processes of one run: how they find each other, agree, and end together.

All run the same program on their part of every batch. Process 0 alone writes what people read; checkpoints are Orbax's.
The work directory must be the same for all, on a shared file system.
"""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from jax_promptmtl.core.errors import UserError, pick

COUNT, INDEX = "JAX_PROMPTMTL_PROCESSES", "JAX_PROMPTMTL_PROCESS"  # JAX reads the coordinator's address, not these
HEARTBEAT = 60  # seconds without a sign of life after which a process counts as dead and the others end themselves
SHUTDOWN = 300  # seconds that those who are done wait for the others


def wanted(mode: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this is one process of several.

    Args:
      mode: `on`, `off`, or `auto`: on where a launcher has said so in the environment: launch/local.sh, SLURM, GKE.
      environment: of the process.

    Raises:
      UserError: a SLURM job of several tasks was not started with srun.

    >>> wanted("auto", {"SLURM_NTASKS": "8", "SLURM_STEP_NODELIST": "n[1-2]"}), wanted("auto", {})
    (True, False)
    """
    if pick(mode, ("auto", "on", "off"), "value of --multihost") != "auto":
        return mode == "on"
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS", "1")))
    if tasks > 1 and "SLURM_STEP_NODELIST" not in environment:
        raise UserError(f"This SLURM job has {tasks} tasks; start them with srun, or give --multihost=off for one.")
    return tasks > 1 or int(environment.get(COUNT, "1")) > 1 or "," in environment.get("TPU_WORKER_HOSTNAMES", "")


def connect(mode: str) -> None:
    """Join the processes of this run, if there are several; call it before anything touches a device.

    SLURM, TPU and Kubernetes are detected by JAX; elsewhere JAX_COORDINATOR_ADDRESS, JAX_PROMPTMTL_PROCESSES and
    JAX_PROMPTMTL_PROCESS tell where, how many and which.
    """
    if not wanted(mode):
        return
    given: dict[str, Any] = {}
    if COUNT in os.environ:
        given = {"num_processes": int(os.environ[COUNT]), "process_id": int(os.environ[INDEX])}
    seconds = int(os.environ.get("JAX_PROMPTMTL_HEARTBEAT", HEARTBEAT))
    try:
        jax.distributed.initialize(**given, heartbeat_timeout_seconds=seconds, shutdown_timeout_seconds=SHUTDOWN)
    except ValueError as error:
        raise UserError(f"Cannot find the other processes: {error} See launch/README.md.") from error
    place = f"process {jax.process_index()} of {jax.process_count()}"
    print(f"{place}: {jax.local_device_count()} of {jax.device_count()} devices", file=sys.stderr, flush=True)


def several() -> bool:
    """Return whether the run has other processes."""
    return jax.distributed.is_initialized()


def first() -> bool:
    """Return whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def part() -> dict[str, int]:
    """Return which part of the data is this process's, as the samplers want it."""
    return {"process_index": jax.process_index(), "process_count": jax.process_count()}


@contextlib.contextmanager
def in_turn(what: str) -> Iterator[None]:
    """Let process 0 do something before the others do: what it leaves on disk they find."""
    if several() and not first():
        multihost_utils.sync_global_devices(what)
    yield
    if several() and first():
        multihost_utils.sync_global_devices(what)


def require_same(what: str, value: Any) -> None:
    """Stop every process unless all were given the same JSON value.

    Raises:
      UserError: names the processes that differ from process 0.
    """
    if not several():
        return
    digest = hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).digest()
    rows = np.asarray(multihost_utils.process_allgather(np.frombuffer(digest, np.uint8)))
    others = [str(index) for index, row in enumerate(rows) if (row != rows[0]).any()]
    if others:
        raise UserError(
            f"{what} of process {', '.join(others)} differs from that of process 0; start all processes with the same "
            "command, code and files."
        )


def leave(code: int) -> NoReturn:
    """End this process with an exit code. After an error nobody waits: the others may be stuck in a sum without us."""
    sys.stdout.flush()
    sys.stderr.flush()
    if several() and code in (os.EX_OK, os.EX_TEMPFAIL):
        jax.distributed.shutdown()
    elif several():
        os._exit(code)
    sys.exit(code)
