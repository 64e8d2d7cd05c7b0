"""The exceptions that the command line turns into exit codes: user errors and preemption."""

import difflib
from collections.abc import Iterable

NAMED = 5  # names that a message lists


class UserError(Exception):
    """Bad config, data or weights. `main` prints the message alone and exits with code 2."""


class Preempted(BaseException):
    """The run was asked to stop and its work is saved. `main` exits with code 75: rerun the same command.

    Not an `Exception`, like KeyboardInterrupt: it can be raised anywhere, and no `except Exception` may swallow it.
    """


def pick(name: str, legal: Iterable[str], what: str) -> str:
    """Return `name` if it is one of `legal`, else raise a `UserError` that names the nearest legal value.

    Args:
      name: what the user gave.
      legal: the values that are allowed.
      what: the noun for the message, such as "method".

    >>> pick("mmap", ["coop", "mmap"], "method")
    'mmap'
    """
    legal = sorted(legal)
    if name in legal:
        return name
    near = difflib.get_close_matches(str(name), legal, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(f"Unknown {what} {name!r}; legal values: {', '.join(legal) or 'none'}.{hint}")


def some(names: Iterable[str]) -> str:
    """Return the first few names as text, and the number of the others.

    >>> some("ab"), some("abcdefgh")
    ("'a', 'b'", "'a', 'b', 'c', 'd', 'e' and 3 others")
    """
    names = list(names)
    more = f" and {len(names) - NAMED:,} others" if len(names) > NAMED else ""
    return ", ".join(repr(name) for name in names[:NAMED]) + more
