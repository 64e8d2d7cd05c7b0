"""Optional mirroring of the TensorBoard scalars to Weights & Biases (extra `wandb`)."""

import contextlib
import hashlib
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from jax_promptmtl.core.errors import UserError


@contextlib.contextmanager
def mirrored(project: str, workdir: pathlib.Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Mirror TensorBoard scalars to a W&B project within the block; WANDB_MODE=offline keeps them on disk.

    Args:
      project: name; empty disables the mirror.
      workdir: gets the folder `wandb`; the same workdir resumes the same W&B run.
      config: stored with the run.

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
        run.finish(exit_code=0 if done else 1)  # as a context manager it would print its own traceback
