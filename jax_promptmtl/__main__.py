"""Prompt learning for many vision tasks at once. VERB --help says more of each.

jax_promptmtl main --config=mmap
jax_promptmtl predict runs/mmap --task=line bell.png
"""

import pathlib
import sys
from collections.abc import Callable, Sequence

from jax_promptmtl.core import command
from jax_promptmtl.core.errors import UserError, pick


# A verb is imported when it is called.
def main() -> int:
    """Train and evaluate a config."""
    from jax_promptmtl import main

    main.leave()


def check_data() -> int:
    """Look at the data of a config before training on it."""
    from jax_promptmtl import check_data

    return check_data.main()


def predict() -> int:
    """Classify images or videos with a trained run."""
    from jax_promptmtl import predict

    return command.run(predict.start)


def export() -> int:
    """Export a trained run as classifiers that need only jax."""
    from jax_promptmtl import export

    return command.run(export.start)


def compare() -> int:
    """Compare two runs."""
    from jax_promptmtl import compare

    return command.run(compare.start)


def benchmark() -> int:
    """Run a sweep over methods, suites, shots and seeds."""
    from jax_promptmtl import benchmark

    return benchmark.main()


def report() -> int:
    """Write the report of a benchmark from its records."""
    from jax_promptmtl import report

    return command.run(report.start)


def bench() -> int:
    """Measure speed and memory against PyTorch."""
    from jax_promptmtl import bench

    return command.run(bench.start)


VERBS: dict[str, Callable[[], int]] = {
    verb.__name__: verb for verb in (main, check_data, predict, export, compare, benchmark, report, bench)
}


def choose(argv: Sequence[str], program: str) -> Callable[[], int]:
    """Return the verb of a command line, and leave its arguments in `sys.argv` for absl.

    Args:
      argv: the arguments, without the program's name.
      program: the program's name as called.

    Raises:
      UserError: there is no such verb, or none.
    """
    parser = command.parser("", __doc__)
    parser.prog, parser.usage = program, "%(prog)s VERB [options]"
    width = max(map(len, VERBS))
    lines = [f"  {name:{width}}  {verb.__doc__}" for name, verb in VERBS.items()]
    parser.epilog = "\n".join(["verbs:", *lines])
    if argv and not argv[0].startswith("-"):
        verb = VERBS[pick(argv[0], VERBS, "verb")]
        sys.argv = [f"{program} {argv[0]}", *argv[1:]]
        return verb
    if argv and argv[0] in ("-h", "--help", "--version"):
        parser.parse_args(argv[:1])
    raise UserError(f"No verb; begin with one, such as {program} main --config=mmap; {program} --help lists them.")


def run() -> int:
    """Run the command line and return the exit code."""
    module = pathlib.PurePath(sys.argv[0]).name == "__main__.py"
    try:
        verb = choose(sys.argv[1:], "python -m jax_promptmtl" if module else "jax_promptmtl")
    except UserError as error:
        return command.complain(str(error))
    return verb()


if __name__ == "__main__":
    sys.exit(run())
