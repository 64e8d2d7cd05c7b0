"""The one exception for a mistake in what the user gave: one sentence that says what, where and what to do."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad config, data or weights. `main` prints the message alone and exits with code 2."""


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
