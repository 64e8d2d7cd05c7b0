"""The manners of every verb of the command line: help in one screen, one sentence for a mistake, exit codes, colours.

Exit codes: 0 done; 1 a bug; 2 bad options, data or weights; 75 interrupted after a checkpoint was saved: run the same
command again; 130 interrupted with nothing to save; 141 nobody reads the output any more.
"""

import argparse
import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn, TextIO

import jax_promptmtl
from jax_promptmtl.core.errors import Preempted, UserError

EXIT_BUG, EXIT_USER, EXIT_AGAIN, EXIT_INTERRUPTED, EXIT_PIPE = 1, 2, 75, 130, 141
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
MAKE_ROOM = "what was saved before stays: make room there, then run the same command again."
STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32"}


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one sentence."""

    def error(self, message: str) -> NoReturn:
        """Raise what `guard` prints."""
        raise UserError(f"{message[:1].upper()}{message[1:].rstrip('.')}; {self.prog} --help shows what can be given.")


def parser(verb: str, doc: str | None) -> Parser:
    """Return a parser with --help and --version; the help is the module's docstring, then the options."""
    parser = Parser(
        prog=typed(verb),
        usage="%(prog)s [options]",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    version = f"jax_promptmtl {jax_promptmtl.__version__}"
    parser.add_argument("--version", action="version", version=version, help="print the version and stop")
    return parser


def typed(verb: str) -> str:
    """Return how a verb was called: `jax_promptmtl VERB`, or as a module."""
    return sys.argv[0] if sys.argv[0].endswith(f"jax_promptmtl {verb}") else f"python -m jax_promptmtl.{verb}"


def run(start: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> int:
    """Do a verb with the arguments of the command line, and return the exit code."""
    return guard(lambda: start(sys.argv[1:] if argv is None else argv))


def guard(job: Callable[[], None], within: contextlib.AbstractContextManager[None] | None = None) -> int:
    """Do a job of the command line and return the exit code; the last line on stderr says why it is not 0.

    Args:
      job: what to do.
      within: entered around the job; what turns signals into `Preempted`, where a job saves its work.
    """
    try:
        with within or contextlib.nullcontext():
            job()
            sys.stdout.flush()
    except UserError as error:
        return complain(str(error))
    except Preempted as stopped:
        print(f"\n{stopped}", file=sys.stderr)  # a progress bar may have left its line open
        return EXIT_AGAIN
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # such as `| head`; the interpreter must not complain once more when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            return complain(f"Cannot write {error.filename or 'a file'}: {error.strerror}; {MAKE_ROOM}")
        traceback.print_exc()
        return EXIT_BUG
    return os.EX_OK


def complain(message: str) -> int:
    """Print a mistake of the user, and return its exit code."""
    print(paint("error:", "red", sys.stderr), message, file=sys.stderr)
    return EXIT_USER


def paint(text: str, style: str, stream: TextIO) -> str:
    """Return text in a style if the stream is a terminal that shows colours (https://no-color.org).

    >>> import io
    >>> paint("error:", "red", io.StringIO())
    'error:'
    """
    plain = not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else f"\x1b[{STYLES[style]}m{text}\x1b[0m"
