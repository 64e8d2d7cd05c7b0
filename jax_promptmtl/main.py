"""Train and evaluate what a config says; every key can be changed on the command line.

    python -m jax_promptmtl.main --config=configs/mmap.py
    python -m jax_promptmtl.main --config=configs/clip.py:maple --config.suite.shots=6 --workdir=runs/six

Other verbs, each with --help: check_data, predict, export, compare, benchmark, report, bench.

Exit codes: 0 done; 1 a bug; 2 bad options, data or weights, said in one sentence; 75 interrupted after a checkpoint was
saved: run the same command again.
"""

import contextlib
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NoReturn

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from jax_promptmtl.core import command, options
from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.core.files import write_whole
from jax_promptmtl.core.locks import lock
from jax_promptmtl.core.versions import versions

Job = Callable[..., None]  # (config, work directory, dry_run=...)


# A job is imported when it is chosen, and JAX with it: help, mistakes and --print_config do not wait for either.
def benchmark() -> Job:
    """Grids of methods on images."""
    from jax_promptmtl.experiments import sweep
    from jax_promptmtl.experiments.image.sweep import Images

    return partial(sweep.run, Images)


def features() -> Job:
    """Features of videos, as files."""
    from jax_promptmtl.experiments.video import features

    return features.run


def finetune() -> Job:
    """Full-size video models on real data."""
    from jax_promptmtl.experiments.video import finetune

    return finetune.run


def pretrain() -> Job:
    """The embedded CLIP."""
    from jax_promptmtl.experiments.image import pretrain

    return pretrain.run


def tune() -> Job:
    """Prompts for image tasks."""
    from jax_promptmtl.experiments.image import tune

    return tune.run


def video() -> Job:
    """Prompts for a video task."""
    from jax_promptmtl.experiments.video import prompting

    return prompting.run


def video_benchmark() -> Job:
    """Grids of prompts for video tasks."""
    from jax_promptmtl.experiments import sweep
    from jax_promptmtl.experiments.video.sweep import Videos

    return partial(sweep.run, Videos)


def video_pretrain() -> Job:
    """The embedded video models."""
    from jax_promptmtl.experiments.video import pretrain

    return pretrain.run


JOBS: dict[str, Callable[[], Job]] = {
    job.__name__: job for job in (benchmark, features, finetune, pretrain, tune, video, video_benchmark, video_pretrain)
}
SHARED = {"tune"}  # jobs that support several processes
GRIDS = {"benchmark", "video_benchmark"}  # jobs that several commands can work on at once, through claims
MANNERS = {"-h", "--help", "--version"}

CONFIG = config_flags.DEFINE_config_file("config", None, "Config: a file, or one that comes along, such as mmap.")
WORKDIR = flags.DEFINE_string("workdir", "", "Where results go; runs/<config file>_<preset> when empty.")
PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "Print the resolved config and stop.")
MULTIHOST = flags.DEFINE_string("multihost", "auto", "Join other processes: on, off, or auto where a launcher says so.")
WANDB = flags.DEFINE_string("wandb", "", "W&B project that gets the scalars too; needs the extra wandb.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would be trained, parameters and memory, and stop.")


def parse(argv: Sequence[str]) -> ConfigDict:
    """Parse the flags and return the config.

    Raises:
      UserError: an unknown flag or config key, a value of another type, a stray argument, no config.
    """
    try:
        stray = flags.FLAGS(options.located(argv))[1:]
        config = CONFIG.value and CONFIG.value.copy_and_resolve_references()  # executes the config file
    except UserError:
        raise
    except Exception as error:  # the user's file, absl and ml_collections may raise anything
        raise UserError(explain(argv, error)) from error
    if stray:
        raise UserError(f"Stray argument {stray[0]!r}; options look like --config.seed=1 or --workdir=runs/first.")
    if config is None:
        raise UserError(options.NOT_GIVEN)
    return config


def explain(argv: Sequence[str], error: BaseException) -> str:
    """Return one sentence for an error of absl or ml_collections.

    Where the command line shows no mistake, it is the message of the innermost error that has one.
    """
    if blamed := options.blame(argv[1:], [name for name in flags.FLAGS if "." not in name]):
        return blamed
    message = say(error)
    while (error := error.__cause__ or error.__context__) and " " in say(error):  # type: ignore[assignment]
        message = say(error)
    given = " ".join(argument for argument in argv[1:] if argument.startswith("--"))
    message = " ".join(message.split()).rstrip(".")
    return f"Cannot read the options {given}: {message}; --print_config shows what can be set."


def say(error: BaseException) -> str:
    """Return an error's message; str() of a KeyError would quote it."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def start(argv: Sequence[str]) -> None:
    """Parse, write down what was asked, and run the job."""
    config = parse(argv)
    if PRINT_CONFIG.value:
        print(json.dumps(config.to_dict(), indent=2))
        return
    from jax_promptmtl.engine import processes, track

    logging.set_verbosity(logging.ERROR)
    name, _, preset = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    job = pick(config.job, JOBS, "job")
    join(job)
    if "://" in WORKDIR.value:
        raise UserError(f"The work directory {WORKDIR.value!r} is an address; mount it, and give the folder's path.")
    workdir = pathlib.Path(WORKDIR.value or "runs/" + "_".join(filter(None, (pathlib.Path(name).stem, preset))))
    processes.require_same("The config or version", {"config": config.to_dict(), "versions": versions()})
    writes = processes.first() and not DRY_RUN.value
    with contextlib.ExitStack() as stack:
        if writes:
            stack.enter_context(kept(config, workdir, alone=job not in GRIDS))
        stack.enter_context(track.mirrored(WANDB.value if writes else "", workdir, config.to_dict()))
        JOBS[job]()(config, workdir, dry_run=DRY_RUN.value)


def join(job: str) -> None:
    """Join the other processes of this run; refused for jobs that do not shard their data."""
    from jax_promptmtl.engine import processes

    if job in SHARED and not DRY_RUN.value:
        processes.connect(MULTIHOST.value)
    elif MULTIHOST.value == "on":
        raise UserError(f"The job {job!r} runs in one process; leave --multihost=on out, and start it once.")


@contextlib.contextmanager
def kept(config: ConfigDict, workdir: pathlib.Path, *, alone: bool) -> Iterator[None]:
    """Create the work directory and write the resolved config; a refused run leaves an earlier config in place.

    Args:
      config: the resolved config.
      workdir: a folder, which need not exist.
      alone: whether to lock it against other commands.

    Raises:
      UserError: it is not writable, or in use by another command.
    """
    path = workdir / "config.json"
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            if alone:
                stack.enter_context(lock(workdir / "run.lock"))
            before = path.read_text() if path.exists() else None
            write_whole(path, json.dumps(config.to_dict(), indent=2) + "\n")
        except OSError as error:
            why = f"Cannot write to the work directory {str(workdir)!r}: {error.strerror}"
            raise UserError(f"{why}; give another --workdir.") from error
        try:
            yield
        except UserError:
            if before is not None:
                write_whole(path, before)
            raise


def explain_options(verb: str, doc: str | None) -> command.Parser:
    """Return the parser for --help and --version; absl parses everything else."""
    parser = command.parser(verb, doc)
    parser.usage = "%(prog)s --config=FILE[:PRESET] [--config.KEY=VALUE ...] [options]"
    for flag in (PRINT_CONFIG, DRY_RUN):
        parser.add_argument(f"--{flag.name}", action="store_true", help=flags.FLAGS[flag.name].help)
    for name, value in (("config", "FILE"), (WORKDIR.name, "DIR"), (MULTIHOST.name, "HOW"), (WANDB.name, "NAME")):
        parser.add_argument(f"--{name}", metavar=value, help=flags.FLAGS[name].help)
    return parser


def main(argv: Sequence[str] | None = None, *, verb: str = "main", doc: str | None = __doc__) -> int:
    """Run and return the exit code; `verb` and `doc` appear in --help."""
    argv = sys.argv if argv is None else argv
    if asked := MANNERS.intersection(argv):
        explain_options(verb, doc).parse_args(sorted(asked)[:1])
    from jax_promptmtl.engine.preemption import interruptible

    return command.guard(lambda: start(argv), interruptible())


def leave() -> NoReturn:
    """Run, then exit as one of several processes."""
    code = main()
    from jax_promptmtl.engine import processes

    processes.leave(code)


if __name__ == "__main__":
    leave()
