"""Weights & Biases beside TensorBoard: the same scalars, for those who want them there (extra `wandb`)."""

import contextlib
import hashlib
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from jax_promptmtl.core.errors import UserError


@contextlib.contextmanager
def mirrored(project: str, workdir: pathlib.Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Send to a W&B project what TensorBoard gets while the body runs; with WANDB_MODE=offline, only to the disk.

    Args:
      project: its name; nothing is sent if empty.
      workdir: of the run; it gets the folder `wandb`. The same one again continues the same W&B run.
      config: shown with the run.

    Raises:
      UserError: the package is not installed.
    """
    if not project:
        yield
        return
    try:
        import wandb
    except ImportError:
        raise UserError("--wandb needs the package wandb; pip install -e '.[wandb]', or leave it out.") from None
    workdir.mkdir(parents=True, exist_ok=True)
    number = hashlib.sha256(str(workdir.resolve()).encode()).hexdigest()[:16]
    quiet = wandb.Settings(console="off", silent=not sys.stderr.isatty())
    about: dict[str, Any] = {"project": project, "name": workdir.name, "id": number, "config": dict(config)}
    run, done = wandb.init(**about, dir=workdir, resume="allow", settings=quiet), False
    try:
        yield  # `engine.writer` finds the open run
        done = True
    finally:
        run.finish(exit_code=0 if done else 1)  # as a context manager it would print a traceback of its own
