"""Read the tensors of a PyTorch zip file (`torch.save`, TorchScript) without torch, and without executing anything.

The pickle inside is read as data: an interpreter for the opcodes that PyTorch writes, in which a global is only a name
and never imported. Names that do not belong to weights, compressed or overlapping entries, and shapes that leave their
storage are refused, so a file can cost no more memory than a small multiple of its own size.
"""

import pickletools
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jax_promptmtl.core.errors import UserError

MAX_PICKLE = 8 << 20  # bytes; ViT-L/14 needs 0.1 MB, so this only stops the absurd
MAX_DEPTH, MAX_VISITS = 64, 200_000  # of nested modules, and of values met on the walk through them
DTYPES = {
    "torch.DoubleStorage": np.float64,
    "torch.FloatStorage": np.float32,
    "torch.HalfStorage": np.float16,
    "torch.BFloat16Storage": ml_dtypes.bfloat16,
    "torch.LongStorage": np.int64,
    "torch.IntStorage": np.int32,
    "torch.ShortStorage": np.int16,
    "torch.CharStorage": np.int8,
    "torch.ByteStorage": np.uint8,
    "torch.BoolStorage": np.bool_,
}
TENSOR, PARAMETER, DICT = (
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "collections.OrderedDict",
)
SIZE, MODULE, TYPED = (
    "torch.Size",
    "__torch__.",
    "torch.jit._pickle.",
)  # classes of a script; TorchScript's typed lists and dicts
CONSTANTS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
}
LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
MARK = object()


class Refused(Exception):
    """The file asks for something that weights do not need."""


@dataclass(frozen=True)
class Name:
    """A global: its dotted name and nothing else."""

    text: str


@dataclass(frozen=True)
class Storage:
    """A flat array in the archive."""

    key: str
    dtype: type
    numel: int


@dataclass(frozen=True)
class Tensor:
    """A strided view of a storage; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class Module:
    """A scripted module: attributes by name."""

    fields: dict[str, Any] = field(default_factory=dict)


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Return {dotted name: array} of every tensor, as read-only views in the file's own precision.

    Args:
      path: a state_dict, a dict with a `state_dict`, or a TorchScript archive such as OpenAI's ViT-B-16.pt.

    Raises:
      UserError: not a PyTorch zip file, damaged, or holding anything but weights.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = _root(archive, Path(path).stat().st_size)
            content = _interpret(archive.read(root + "data.pkl"))
            if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
                content = content["state_dict"]
            return _load(_tensors(content), archive, root)
    except Refused as refused:
        raise UserError(
            f"Refused to read {str(path)!r}: {refused}; give weights alone, best as .safetensors."
        ) from None
    except FileNotFoundError:
        raise UserError(f"No weights at {str(path)!r}; give the path of an existing file.") from None
    except Exception as error:  # a damaged or hostile file can fail anywhere; it is the user's file, not our bug
        raise UserError(
            f"Cannot read {str(path)!r} as a PyTorch zip file ({type(error).__name__}: {str(error)[:80]}); "
            "save the state_dict again with torch >= 1.6, or give .safetensors."
        ) from None


def _root(archive: zipfile.ZipFile, size: int) -> str:
    """Return the folder of the archive that holds `data.pkl`, after bounding what a reader could be made to unpack."""
    roots = [
        name[: -len("data.pkl")] for name in archive.namelist() if name.endswith("data.pkl") and name.count("/") < 2
    ]
    if len(roots) != 1:
        raise Refused(f"it holds {len(roots)} pickles and not one")
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


def _interpret(pickled: bytes) -> Any:
    """Run the pickle's opcodes on a stack of inert values and return the last one."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(pickled):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_name(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                module, name = _pop(stack, 2)
                stack.append(_name(f"{module}.{name}"))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE" | "NEWOBJ":
                name, arguments = _pop(stack, 2)
                stack.append(_construct(name, arguments))
            case name if name in CONSTANTS:
                stack.append(argument)
            case name if name in LITERALS:
                stack.append(LITERALS[name])
            case name:
                _assemble(name, stack)
    raise Refused("its pickle has no end")


def _assemble(opcode: str, stack: list[Any]) -> None:
    """Run one opcode that builds or fills a container on top of the stack."""
    match opcode:
        case "MARK":
            stack.append(MARK)
        case "EMPTY_DICT":
            stack.append({})
        case "EMPTY_LIST":
            stack.append([])
        case "TUPLE":
            stack.append(tuple(_pop_mark(stack)))
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            stack.append(tuple(_pop(stack, int(opcode[-1]))))
        case "APPEND" | "APPENDS":
            values = _pop_mark(stack) if opcode == "APPENDS" else _pop(stack, 1)
            _expect(stack[-1], list).extend(values)
        case "SETITEM" | "SETITEMS":
            items = _pop_mark(stack) if opcode == "SETITEMS" else _pop(stack, 2)
            keys = [_key(key) for key in items[::2]]
            _expect(stack[-1], dict).update(zip(keys, items[1::2], strict=True))
        case "BUILD":
            state = _expect(stack.pop(), dict)
            if isinstance(stack[-1], Module):
                stack[-1].fields.update(state)
            else:
                _expect(stack[-1], dict)  # an OrderedDict's attributes, such as _metadata: not weights
        case _:
            raise Refused(f"its pickle has the opcode {opcode}")


def _pop(stack: list[Any], n: int) -> list[Any]:
    """Remove the top `n` values."""
    if len(stack) < n or any(value is MARK for value in stack[-n:]):
        raise Refused("its pickle takes values that are not there")
    values = stack[-n:]
    del stack[-n:]
    return values


def _pop_mark(stack: list[Any]) -> list[Any]:
    """Remove the values above the topmost mark, and the mark."""
    values = []
    while (value := stack.pop()) is not MARK:
        values.append(value)
    return values[::-1]


def _expect(value: Any, kind: type) -> Any:
    """Return the value if it is of the plain type `kind`."""
    if type(value) is not kind:
        raise Refused(f"it has a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _key(value: Any) -> Any:
    """Return a dict key; a deeply nested tuple would overflow the C stack when hashed."""
    if not isinstance(value, str | int | float | None):
        raise Refused(f"it has a dict key of type {type(value).__name__}")
    return value


def _name(text: str) -> Name:
    """Return a global if weights need it."""
    known = text in DTYPES or text in (TENSOR, PARAMETER, DICT, SIZE) or text.startswith((MODULE, TYPED + "build_"))
    if not known and text != TYPED + "restore_type_tag":
        raise Refused(f"it names {text[:80]!r}, which is not part of any weights")
    return Name(text)


def _construct(name: Any, arguments: Any) -> Any:
    """Return the inert value that a call stands for."""
    text, arguments = _expect(name, Name).text, _expect(arguments, tuple)
    if text == TENSOR:
        storage, offset, shape, strides = arguments[:4]
        return _tensor(_expect(storage, Storage), offset, _expect(shape, tuple), _expect(strides, tuple))
    if text == PARAMETER:
        return _expect(arguments[0], Tensor)
    if text == DICT and not arguments:
        return {}
    if text.startswith(MODULE) and not arguments:
        return Module()
    if text == SIZE or text.startswith(TYPED):
        return arguments[0]
    raise Refused(f"it calls {text[:80]!r} in a way that PyTorch never does")


def _storage(persistent: Any) -> Storage:
    """Return the storage that `('storage', type, key, device, numel)` stands for."""
    tag, kind, key, _, numel = _expect(persistent, tuple)
    if tag != "storage" or _expect(kind, Name).text not in DTYPES or _expect(numel, int) < 0:
        raise Refused("it refers to something that is not a tensor's storage")
    return Storage(_expect(key, str), DTYPES[kind.text], numel)


def _tensor(storage: Storage, offset: Any, shape: tuple, strides: tuple) -> Tensor:
    """Return a tensor whose every element lies in its storage, none of them invented by a stride of 0."""
    if len(shape) != len(strides) or len(shape) > 8:
        raise Refused(f"it has a tensor of {len(shape)} axes and {len(strides)} strides")
    if any(type(n) is not int or n < 0 for n in (offset, *shape, *strides)):
        raise Refused("it has a tensor whose shape is not made of counts")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    elements = 1
    for n in shape:
        elements *= n
    if elements > storage.numel or (elements and last >= storage.numel):
        raise Refused(f"it has a tensor of shape {str(shape)[:60]} that is larger than its storage of {storage.numel}")
    return Tensor(storage, offset, shape, strides)


def _tensors(content: Any) -> dict[str, Tensor]:
    """Return {dotted name: tensor} below a dict or a scripted module."""
    found: dict[str, Tensor] = {}
    visits = 0

    def walk(value: Any, name: str, depth: int) -> None:
        nonlocal visits
        visits += 1
        if depth > MAX_DEPTH or visits > MAX_VISITS:  # a value may contain itself, or its neighbour a thousand times
            raise Refused("its modules are nested without end")
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, dict | Module):
            for key, inner in (value.fields if isinstance(value, Module) else value).items():
                walk(inner, f"{name}.{key}" if name else str(key), depth + 1)

    walk(content, "", 0)
    if not found:
        raise Refused("it holds no tensors")
    return found


def _load(tensors: dict[str, Tensor], archive: zipfile.ZipFile, root: str) -> dict[str, np.ndarray]:
    """Read every storage once and return the views."""
    flat: dict[Storage, np.ndarray] = {}
    for tensor in tensors.values():
        storage = tensor.storage
        if storage not in flat:
            flat[storage] = np.frombuffer(archive.read(f"{root}data/{storage.key}"), storage.dtype)
            if len(flat[storage]) != storage.numel:
                raise Refused(f"storage {storage.key!r} has {len(flat[storage])} elements and not {storage.numel}")
    return {name: _view(tensor, flat[tensor.storage]) for name, tensor in tensors.items()}


def _view(tensor: Tensor, flat: np.ndarray) -> np.ndarray:
    """Return the strided view; NumPy checks the bounds a second time."""
    size = flat.dtype.itemsize
    strides = tuple(stride * size for stride in tensor.strides)
    return np.ndarray(tensor.shape, flat.dtype, flat, tensor.offset * size, strides)
