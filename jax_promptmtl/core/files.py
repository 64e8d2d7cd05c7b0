"""The package's own files, JSON, and crash-safe writing."""

import json
import os
import pathlib
from typing import Any

from jax_promptmtl.core.errors import UserError

ASSETS = pathlib.Path(__file__).parent.parent / "assets"
CONFIGS = ASSETS / "configs"  # in a wheel
if not CONFIGS.is_dir():
    CONFIGS = ASSETS.parent.parent / "configs"  # in a checkout


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Load a JSON file whose top level is an object."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{str(path)!r} is not JSON ({error}); restore the file.") from error
    if not isinstance(content, dict):
        raise UserError(f"{str(path)!r} is a JSON {type(content).__name__}, not an object; restore the file.")
    return content


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file atomically: a crash or power cut leaves the old content or the new, never a part.

    Raises:
      OSError: it cannot be written; the old content stays.
    """
    path = pathlib.Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Flush a folder's entries to disk; until then a power cut may undo a rename."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
