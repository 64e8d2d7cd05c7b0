"""What all commands share: one-screen help, one-sentence user errors, exit codes and colours.

Exit codes: 0 success; 1 a bug; 2 bad options, data or weights; 75 interrupted after a checkpoint was saved: rerun the
same command; 130 interrupted with nothing to save; 141 broken pipe on stdout.
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
    """An argument parser that raises one-sentence `UserError`s instead of exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise `UserError`, which `guard` prints."""
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
    """Return the command as the user typed it: `jax_promptmtl VERB` or `python -m jax_promptmtl.VERB`."""
    return sys.argv[0] if sys.argv[0].endswith(f"jax_promptmtl {verb}") else f"python -m jax_promptmtl.{verb}"


def run(start: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> int:
    """Run a command on the command-line arguments and return its exit code."""
    return guard(lambda: start(sys.argv[1:] if argv is None else argv))


def guard(job: Callable[[], None], within: contextlib.AbstractContextManager[None] | None = None) -> int:
    """Run a job and return its exit code; on failure the last line on stderr gives the reason.

    Args:
      job: the work; its return value is ignored.
      within: entered around the job; what turns signals into `Preempted`, where a job saves its work.
    """
    try:
        with within or contextlib.nullcontext():
            job()
            sys.stdout.flush()
    except UserError as error:
        return complain(str(error))
    except Preempted as stopped:
        print(f"\n{stopped}", file=sys.stderr)  # an interrupted progress bar leaves its line unterminated
        return EXIT_AGAIN
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # as under `| head`; flushing at exit would raise again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            return complain(f"Cannot write {error.filename or 'a file'}: {error.strerror}; {MAKE_ROOM}")
        traceback.print_exc()
        return EXIT_BUG
    return os.EX_OK


def complain(message: str) -> int:
    """Print a user error and return its exit code."""
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
