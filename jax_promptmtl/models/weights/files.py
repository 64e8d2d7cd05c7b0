"""Find and read files of weights in every format that loads; docs/weights.md lists them."""

import hashlib
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.files import read_json
from jax_promptmtl.models.weights import checkpoint
from jax_promptmtl.models.weights.table import State

INDEX = ".index.json"  # of weights in several files
FILES = (
    *("model.safetensors", "open_clip_model.safetensors", f"model.safetensors{INDEX}"),
    *("pytorch_model.bin", "open_clip_pytorch_model.bin", f"pytorch_model.bin{INDEX}", "mp_rank_00_model_states.pt"),
)
SUFFIXES = ("safetensors", "pt", "pth", "bin", "ckpt", "model", "pkl", "pth.tar")


def locate(path: str | Path) -> Path:
    """Return the weights file: the path itself, or in a folder the usual names, else the only one there is."""
    path = Path(path)
    if path.is_file():
        return path
    candidates = [path / name for name in FILES if (path / name).is_file()]
    others = sorted({file for suffix in SUFFIXES for file in path.glob(f"*.{suffix}") if file.is_file()})
    if not candidates and len(others) > 1:
        shown = ", ".join(file.name for file in others[:5])
        raise UserError(f"{str(path)!r} holds {len(others)} files of weights ({shown}); name one of them.")
    if not candidates and not others:
        raise UserError(
            f"No weights at {str(path)!r}; give a file ({', '.join('.' + s for s in SUFFIXES)}) or a folder with "
            f"{FILES[0]}."
        )
    return (candidates or others)[0]


def read_state(file: Path) -> State:
    """Return {torch name: array} of a weights file in its own precision."""
    if file.name.endswith(INDEX):
        return _read_shards(file)
    if not _is_safetensors(file):
        return checkpoint.read(file)
    try:
        return safetensors.numpy.load_file(file)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"Cannot read {str(file)!r} ({error}); fetch the file again.") from error


def _is_safetensors(file: Path) -> bool:
    """Return whether the file begins like one, whatever its name: the length of a JSON object, and its brace."""
    with file.open("rb") as stream:
        start = stream.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= file.stat().st_size


def shards(index: Path) -> dict[str, list[str]]:
    """Return {file beside the index: names of its leaves}."""
    found: dict[str, list[str]] = {}
    names = read_json(index).get("weight_map")
    for name, part in names.items() if isinstance(names, dict) else ():
        if not isinstance(part, str) or Path(part).name != part or part.endswith(INDEX):
            raise UserError(f"{str(index)!r} names {str(part)[:80]!r}, which is no file beside it; restore the file.")
        found.setdefault(part, []).append(name)
    if not found:
        raise UserError(f"{str(index)!r} has no weight_map from leaves to files; restore the file.")
    return found


def _read_shards(index: Path) -> State:
    """Return the leaves of all files that the index names."""
    state: State = {}
    parts = shards(index)
    lost = [part for part in sorted(parts) if not (index.parent / part).is_file()]
    if lost:
        raise UserError(
            f"{len(lost)} of the {len(parts)} files that {str(index)!r} names are missing ({', '.join(lost[:3])}); "
            "fetch them."
        )
    for part, names in sorted(parts.items()):
        leaves = read_state(index.parent / part)
        if absent := sorted(set(names) - leaves.keys()):
            raise UserError(f"{str(index.parent / part)!r} lacks {absent[0]!r}, which the index says it has.")
        state |= {name: leaves[name] for name in names}
    return state


def digest(file: Path) -> str:
    """Return the SHA-256 of a weights file; of several files, that of their SHA-256 in the order of their names."""
    if file.name.endswith(INDEX):
        each = "".join(digest(file.parent / part) for part in sorted(shards(file)))
        return hashlib.sha256(each.encode()).hexdigest()
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def optional_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file, or {} where there is none."""
    return read_json(path) if path.is_file() else {}
