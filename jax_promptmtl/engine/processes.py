"""Multi-process runs: joining, agreement on inputs, and ending together.

All run the same program on their shard of every batch. Process 0 writes logs and reports; Orbax writes checkpoints.
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
HEARTBEAT = 60  # seconds without a heartbeat after which a process counts as dead and the others exit
SHUTDOWN = 300  # seconds that finished processes wait for the others


def wanted(mode: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this is one process of several.

    Args:
      mode: `on`, `off`, or `auto`: on where the environment is that of a launcher: launch/local.sh, SLURM, GKE.
      environment: environment variables of the process.

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
    """Join the other processes of this run, if any; must precede any use of a device.

    SLURM, TPU and Kubernetes are detected by JAX; elsewhere JAX_COORDINATOR_ADDRESS, JAX_PROMPTMTL_PROCESSES and
    JAX_PROMPTMTL_PROCESS give the address, the number of processes and the index of this one.
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
    """Return whether the run has more than one process."""
    return jax.distributed.is_initialized()


def first() -> bool:
    """Return whether this is process 0, which writes and logs."""
    return jax.process_index() == 0


def part() -> dict[str, int]:
    """Return (index, count) of this process's shard of the data, for the samplers."""
    return {"process_index": jax.process_index(), "process_count": jax.process_count()}


@contextlib.contextmanager
def in_turn(what: str) -> Iterator[None]:
    """Run a block in process 0 first, so that the others find its files on disk."""
    if several() and not first():
        multihost_utils.sync_global_devices(what)
    yield
    if several() and first():
        multihost_utils.sync_global_devices(what)


def require_same(what: str, value: Any) -> None:
    """Raise in every process unless all pass the same JSON value.

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
    """Exit with a code. After an error do not wait: the others may hang in a collective without this process."""
    sys.stdout.flush()
    sys.stderr.flush()
    if several() and code in (os.EX_OK, os.EX_TEMPFAIL):
        jax.distributed.shutdown()
    elif several():
        os._exit(code)
    sys.exit(code)
