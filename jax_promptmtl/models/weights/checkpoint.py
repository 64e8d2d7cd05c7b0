"""Read the tensors of a checkpoint of PyTorch, or of pickled NumPy arrays, without torch and executing nothing.

Five formats: torch's zip file (`torch.save` since 1.6, DeepSpeed's among them), TorchScript, torch's stream before 1.6,
and pickles of arrays as detectron2 has them, those of Python 2 included. Compressed or overlapping entries, shapes that
leave their storage and tensors that overlap are refused, so a file can cost no more than a small multiple of its size.
"""

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.weights import names
from jax_promptmtl.models.weights.inert import Globals, interpret
from jax_promptmtl.models.weights.values import Array, Module, Name, Object, Refused, Storage, Tensor

MAGIC = 0x1950A86A20F9469CFC6C  # the first value of torch's stream
PROTOCOL = 1001
MAX_PICKLE = 32 << 20  # bytes of a zip file's table of contents; ViT-L/14 needs 0.1 MB
MAX_DEPTH, MAX_VISITS = 64, 200_000  # of nested modules, and of values met on the walk through them
MAX_LETTERS = 16 << 20  # of all dotted names together; 1,000 leaves have 0.1 million
OVERLAP = 8  # bytes of tensors per byte of the file: tied weights stand in it once
BESIDE = {  # of a training beside its weights: not read
    *("optimizer", "optimizers", "optimizer_state", "optimizer_states", "optimizer_state_dict", "optim", "opt"),
    *("lr_scheduler", "lr_schedulers", "scheduler", "schedulers", "scheduler_state_dict", "scaler", "loss_scaler"),
    *("amp", "amp_scaler", "grad_scaler", "rng_state", "rng_states", "callbacks", "loops", "message_hub"),
}
OTHERS = (  # place, small letters that stand there, what it is
    (0, b"version https://git-lfs", "a pointer of Git LFS; fetch the file that it stands for (git lfs pull)"),
    (0, b"<", "a web page and not what it was to fetch"),
    (0, b"{", "a JSON file"),
    (0, b"\x89hdf", "an HDF5 file, as Keras writes them"),
    (0, b"gguf", "a GGUF file, whose numbers are quantised"),
    (0, b"\x1f\x8b", "compressed by gzip; unpack it"),
    (0, b"\x93numpy", "a single NumPy array"),
    (257, b"ustar", "an archive of tar, as torch wrote its files before 0.2; unpack it, or save it again with torch"),
)
Values = Mapping[str, Tensor | Array]
Load = Callable[[Storage], np.ndarray]


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Return {dotted name: array} of every tensor, as read-only views in the file's own precision.

    Args:
      path: a state_dict, whatever a training saves around it, or a TorchScript archive such as OpenAI's ViT-B-16.pt.

    Raises:
      UserError: not such a file, damaged, or asking for anything but weights.
    """
    try:
        with Path(path).open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            start = stream.read(2)
            stream.seek(0)
            return _read_zip(stream, size) if start == b"PK" else _read_stream(stream, size)
    except Refused as refused:
        raise UserError(
            f"Refused to read {str(path)!r}: {refused}; give weights alone, best as .safetensors."
        ) from None
    except FileNotFoundError:
        raise UserError(f"No weights at {str(path)!r}; give the path of an existing file.") from None
    except Exception as error:  # a damaged or hostile file can fail anywhere; it is the user's file, not our bug
        raise UserError(
            f"Cannot read {str(path)!r} as a checkpoint of PyTorch ({type(error).__name__}: {str(error)[:80]!r}): it "
            "is damaged or something else; fetch it again, save its state_dict again, or give .safetensors."
        ) from None


# --- containers -------------------------------------------------------------------------------------------------------


def _read_zip(stream: BinaryIO, size: int) -> dict[str, np.ndarray]:
    """Read torch's zip file."""
    with zipfile.ZipFile(stream) as archive:
        root = _root(archive, size)
        pickled = archive.read(root + "data.pkl")
        known = Globals(names.named, names.construct, names.storage)
        content = interpret(io.BytesIO(pickled), len(pickled), known, size)

        def load(storage: Storage) -> np.ndarray:
            return np.frombuffer(archive.read(f"{root}data/{storage.key}"), storage.dtype)

        return _arrays(_tensors(content), load, size)


def _root(archive: zipfile.ZipFile, size: int) -> str:
    """Return the folder of the archive that holds `data.pkl`, after bounding what a reader could be made to unpack."""
    roots = [
        name[: -len("data.pkl")] for name in archive.namelist() if name.endswith("data.pkl") and name.count("/") < 2
    ]
    if len(roots) != 1:
        raise Refused(f"it is a zip file with {len(roots)} pickles and not one")
    entries = [i for i in archive.infolist() if i.filename.startswith((f"{roots[0]}data/", f"{roots[0]}data.pkl"))]
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise Refused("its tensors are compressed, which PyTorch never does")
    if sum(entry.file_size for entry in entries) > size:
        raise Refused("its entries claim more bytes than the file has")
    if archive.getinfo(f"{roots[0]}data.pkl").file_size > MAX_PICKLE:
        raise Refused(f"its table of contents is over {MAX_PICKLE >> 20} MiB")
    order = f"{roots[0]}byteorder"
    if order in archive.namelist() and archive.getinfo(order).file_size < 99 and archive.read(order) != b"little":
        raise Refused("it was written on a big-endian machine")
    return roots[0]


def _read_stream(stream: BinaryIO, size: int) -> dict[str, np.ndarray]:
    """Read torch's stream, whose first pickle is a number, or one pickle of arrays."""
    _recognise(stream)
    seen: dict[str, Storage] = {}

    def storage(persistent: Any) -> Any:
        found = names.storage(persistent)
        if isinstance(found, Storage) and seen.setdefault(found.key, found) != found:
            raise Refused(f"storage {found.key[:40]!r} has two sizes or types")
        return found

    known = Globals(names.named, names.construct, storage)
    content = interpret(stream, size, known)
    if content != MAGIC:
        return _arrays(_tensors(content), _no_storage, size)
    if interpret(stream, size, known) != PROTOCOL:
        raise Refused(f"it has another protocol than torch's {PROTOCOL}")
    system = interpret(stream, size, known)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Refused("it was written on a big-endian machine")
    tensors = _tensors(interpret(stream, size, known))
    places = _places(stream, size, interpret(stream, size, known), seen)

    def load(wanted: Storage) -> np.ndarray:
        stream.seek(places[wanted.key])
        return np.frombuffer(stream.read(wanted.numel * np.dtype(wanted.dtype).itemsize), wanted.dtype)

    return _arrays(tensors, load, size)


def _places(stream: BinaryIO, size: int, keys: Any, seen: Mapping[str, Storage]) -> dict[str, int]:
    """Return where in the file each storage begins; each follows its number of elements, in the order of the keys."""
    if not isinstance(keys, list) or sorted(keys) != sorted(seen):
        raise Refused("its list of storages is not that of its tensors")
    places = {}
    for key in keys:
        (numel,) = struct.unpack("<q", stream.read(8))
        if numel != seen[key].numel:
            raise Refused(f"storage {key[:40]!r} has {numel} elements and not {seen[key].numel}")
        places[key] = stream.tell()
        if stream.seek(numel * np.dtype(seen[key].dtype).itemsize, 1) > size:
            raise Refused("it is cut off")
    return places


def _no_storage(storage: Storage) -> np.ndarray:
    raise Refused("it is one pickle and has no storages of torch")


def _recognise(stream: BinaryIO) -> None:
    """Refuse files that begin like something else, and leave the stream at its start."""
    head = stream.read(512)
    stream.seek(0)
    for place, start, what in OTHERS:
        if head[place:].lower().startswith(start):
            raise Refused(f"it is {what}")
    if not head:
        raise Refused("it is empty")


# --- content ----------------------------------------------------------------------------------------------------------


def _tensors(content: Any) -> dict[str, Tensor | Array]:
    """Return {dotted name: tensor} below a dict or a scripted module."""
    found: dict[str, Tensor | Array] = {}
    other: set[str] = set()
    visits = letters = 0

    def walk(value: Any, name: str, depth: int) -> None:
        nonlocal visits, letters
        visits, letters = visits + 1, letters + len(name)
        if depth > MAX_DEPTH or visits > MAX_VISITS:  # a value may contain itself, or its neighbour a thousand times
            raise Refused("its modules are nested without end")
        if isinstance(value, Tensor) or (isinstance(value, Array) and value.kind is not None):
            found[name] = value
        elif isinstance(value, dict | Module):
            for key, inner in (value.fields if isinstance(value, Module) else value).items():
                key = key if isinstance(key, str) else "?" if isinstance(key, bytes | Name) else str(key)
                if letters + len(name) + len(key) > MAX_LETTERS:
                    raise Refused("its names are longer than those of any weights")
                if depth or key not in BESIDE:
                    walk(inner, f"{name}.{key}" if name else key, depth + 1)
        elif isinstance(value, Object) and len(other) < 9:
            other.add(value.kind)

    walk(content, "", 0)
    if not found:
        more = f" but {', '.join(sorted(other))[:200]}: save the state_dict() of the model" if other else ""
        raise Refused(f"it holds no tensors{more}")
    return found


def _arrays(values: Values, load: Load, size: int) -> dict[str, np.ndarray]:
    """Read every storage once and return the views."""
    flat: dict[Storage, np.ndarray] = {}
    for value in values.values():
        if isinstance(value, Tensor) and value.storage not in flat:
            flat[value.storage] = _checked(value.storage, load(value.storage))
    if sum(value.nbytes for value in values.values()) > OVERLAP * size:
        raise Refused("its tensors overlap, so that they would take many times the size of the file")
    return {
        name: value.numpy() if isinstance(value, Array) else _view(value, flat[value.storage])
        for name, value in values.items()
    }


def _checked(storage: Storage, found: np.ndarray) -> np.ndarray:
    if len(found) != storage.numel:
        raise Refused(f"storage {storage.key[:40]!r} has {len(found)} elements and not {storage.numel}")
    return found


def _view(tensor: Tensor, flat: np.ndarray) -> np.ndarray:
    """Return the strided view; NumPy checks the bounds a second time."""
    size = flat.dtype.itemsize
    strides = tuple(stride * size for stride in tensor.strides)
    return np.ndarray(tensor.shape, flat.dtype, flat, tensor.offset * size, strides)
