"""The manners of every verb of the command line: help in one screen, one sentence for a mistake, exit codes, colours.

Exit codes: 0 done; 1 a bug; 2 bad options, data or weights; 75 interrupted after a checkpoint was saved: run the same
command again; 130 interrupted with nothing to save; 141 nobody reads the output any more.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, TextIO

import jax_promptmtl
from jax_promptmtl.engine.preemption import Preempted
from jax_promptmtl.errors import UserError

EXIT_USER, EXIT_AGAIN, EXIT_INTERRUPTED, EXIT_PIPE = 2, 75, 130, 141
STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32"}


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one sentence."""

    def error(self, message: str) -> NoReturn:
        """Raise what `guard` prints."""
        raise UserError(f"{message[:1].upper()}{message[1:].rstrip('.')}; {self.prog} --help shows what can be given.")


def parser(verb: str, doc: str | None) -> Parser:
    """Return a parser with --help and --version; the help is the module's docstring, then the options."""
    parser = Parser(
        prog=f"python -m jax_promptmtl.{verb}",
        usage="%(prog)s [options]",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    version = f"jax_promptmtl {jax_promptmtl.__version__}"
    parser.add_argument("--version", action="version", version=version, help="print the version and stop")
    return parser


def run(start: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> int:
    """Do a verb with the arguments of the command line, and return the exit code."""
    return guard(lambda: start(sys.argv[1:] if argv is None else argv))


def guard(job: Callable[[], None]) -> int:
    """Do a job of the command line and return the exit code."""
    try:
        job()
        sys.stdout.flush()
    except UserError as error:
        print(f"{paint('error:', 'red', sys.stderr)} {error}", file=sys.stderr)
        return EXIT_USER
    except Preempted as stopped:
        print(stopped, file=sys.stderr)
        return EXIT_AGAIN
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # such as `| head`; the interpreter must not complain once more when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    return os.EX_OK


def paint(text: str, style: str, stream: TextIO) -> str:
    """Return text in a style if the stream is a terminal that shows colours (https://no-color.org).

    >>> import io
    >>> paint("error:", "red", io.StringIO())
    'error:'
    """
    plain = not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else f"\x1b[{STYLES[style]}m{text}\x1b[0m"
