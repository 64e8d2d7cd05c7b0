"""Files that everybody reads: those of the package, and JSON."""

import json
import pathlib

from jax_promptmtl.core.errors import UserError

ASSETS = pathlib.Path(__file__).parent.parent / "assets"
CONFIGS = ASSETS / "configs"  # in a wheel
if not CONFIGS.is_dir():
    CONFIGS = ASSETS.parent.parent / "configs"  # in a checkout


def read_json(path: pathlib.Path) -> dict:
    """Return the content of a JSON file that holds an object."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{str(path)!r} is not JSON ({error}); restore the file.") from error
    if not isinstance(content, dict):
        raise UserError(f"{str(path)!r} is a JSON {type(content).__name__}, not an object; restore the file.")
    return content
