"""The command line: `python -m jax_promptmtl.main --config=configs/mmap.py`.

Exit codes: 0 done; 1 a bug; 2 bad config, data or weights, said in one sentence; 75 interrupted after a checkpoint was
saved: run the same command again.
"""

import difflib
import json
import os
import pathlib
import sys
from collections.abc import Sequence

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from jax_promptmtl import pretrain, tune
from jax_promptmtl.engine.preemption import Preempted
from jax_promptmtl.errors import UserError, pick

JOBS = {"pretrain": pretrain.run, "tune": tune.run}
EXIT_USER, EXIT_AGAIN = 2, 75

CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, such as configs/mmap.py.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", "", "Where results go; runs/<name of the config file> when empty.")
PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "Print the resolved config and stop.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would be trained, parameters and memory, and stop.")


def parse(argv: Sequence[str]) -> ConfigDict:
    """Parse the flags and return the config.

    Raises:
      UserError: an unknown flag or config key, a value of another type, a stray argument, no config.
    """
    try:
        stray = flags.FLAGS(list(argv))[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(explain(argv, error)) from error
    if stray:
        near = difflib.get_close_matches(
            stray[0].split("=")[0], ["--config", "--workdir", "--config.seed"], n=1, cutoff=0.4
        )
        hint = f" Did you mean {near[0]}=...?" if near else ""
        raise UserError(f"Stray argument {stray[0]!r}; options look like --config.seed=1.{hint}")
    if CONFIG.value is None:
        raise UserError("No config; give one, such as --config=configs/mmap.py.")
    return CONFIG.value


def explain(argv: Sequence[str], error: Exception) -> str:
    """Return one sentence for what ml_collections and absl say in several ways."""
    message = " ".join(str(error.args[0] if error.args else error).split())
    overrides = [argument for argument in argv if argument.startswith("--config.")]
    where = f" (among {' '.join(overrides)})" if overrides else ""
    return f"Cannot read the options{where}: {message}"


def start(argv: Sequence[str]) -> None:
    """Parse, write down what was asked, and run the job."""
    config = parse(argv)
    if PRINT_CONFIG.value:
        print(json.dumps(config.to_dict(), indent=2))
        return
    logging.set_verbosity(logging.ERROR)
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"]).split(":")[0]).stem
    workdir = pathlib.Path(WORKDIR.value or f"runs/{name}")
    if not DRY_RUN.value:
        write_config(config, workdir)
    JOBS[pick(config.job, JOBS, "job")](config, workdir, dry_run=DRY_RUN.value)


def write_config(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Create the work directory and keep the resolved config in it."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n")
    except OSError as error:
        raise UserError(
            f"Cannot write to the work directory {str(workdir)!r}: {error.strerror}; give another --workdir."
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run and return the exit code."""
    try:
        start(sys.argv if argv is None else argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER
    except Preempted as stopped:
        print(stopped, file=sys.stderr)
        return EXIT_AGAIN
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
