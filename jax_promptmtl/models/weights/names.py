"""The globals that a checkpoint may name, and the inert value that a call of each stands for.

Of Python's own library, of PyTorch's and NumPy's functions only those listed here may be called; objects of other
packages (options, schedulers, ...) are `Object`s, whatever they say. Nothing is ever called: the list makes a file that
was written to do harm an error instead of a curiosity.
"""

import re
import sys
from collections.abc import Callable
from typing import Any

from jax_promptmtl.models.weights.values import (
    DTYPES,
    Array,
    DType,
    Module,
    Name,
    Object,
    Refused,
    Storage,
    Tensor,
    expect,
    tensor,
)

MODULE = "__torch__."  # classes of a script
DOTTED = re.compile(r"[A-Za-z_][\w<>]*(\.[A-Za-z_][\w<>]*)+", re.ASCII)
LIBRARY = sys.stdlib_module_names | {"__builtin__", "copy_reg", "pip", "setuptools", "pkg_resources", "nt", "cPickle"}
TYPES = "object set frozenset list dict tuple int float str bool bytes bytearray complex slice range type unicode long"
INERT = {
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in TYPES.split()),
    *("argparse.Namespace", "types.SimpleNamespace", "functools.partial", "collections.deque"),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *(f"{where}.{name}" for where in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")),
    *(f"pathlib.{name}" for name in ("Path", "PurePath", "PurePosixPath", "PureWindowsPath")),
    *(f"typing.{name}" for name in ("Any", "Union", "Optional", "List", "Dict", "Tuple")),
    *("decimal.Decimal", "fractions.Fraction", "uuid.UUID"),
    *("operator.getitem", "_operator.getitem", "types.GenericAlias"),  # of types, such as typing.Optional[int]
    *("torch.device", "torch.serialization._get_layout", "torch._utils._rebuild_device_tensor_from_numpy"),
    *(f"numpy.random._pickle.__{name}_ctor" for name in ("randomstate", "generator", "bit_generator")),
    *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
}
Arguments = tuple[Any, ...]


def named(text: str) -> Name:
    """Return a global that checkpoints may name."""
    shown = f"it names {text[:80]!r}, which is not part of any weights"
    if text.startswith(MODULE) and len(text) < 300:
        return Name(text)
    if len(text) > 200 or not DOTTED.fullmatch(text):
        raise Refused(shown)
    if text in INERT or text in CALLS or text.startswith("torch.jit._pickle."):
        return Name(text)
    first, *rest = text.split(".")
    if first in LIBRARY or any(part.startswith("__") for part in rest):
        raise Refused(shown)
    return Name(text)


def construct(name: Any, arguments: Any, *, new: bool) -> Any:
    """Return the inert value that a call of a function, or with `new` of a class, stands for."""
    text, arguments = expect(name, Name).text, expect(arguments, tuple)
    if text in CALLS:
        return CALLS[text](arguments)
    if text.startswith(MODULE) and not arguments:
        return Module()
    if text.startswith("torch.jit._pickle.") and arguments:
        return arguments[0]
    is_class = text.rpartition(".")[2].lstrip("_")[:1].isupper()
    if text.startswith(MODULE) or not (new or is_class or text in INERT):
        raise Refused(f"it calls {text[:80]!r} in a way that weights never do")
    return Object(text)


def storage(persistent: Any) -> Storage | Name:
    """Return the storage that `('storage', type, key, device, numel)` stands for, or the class of a pickled module."""
    parts = expect(persistent, tuple)
    if parts[:1] == ("module",) and len(parts) > 1:
        found: Name = expect(parts[1], Name)
        return found
    if parts[:1] != ("storage",) or len(parts) < 5:
        raise Refused("it refers to something that is not a tensor's storage")
    kind, key, numel = expect(parts[1], Name).text, expect(parts[2], str), expect(parts[4], int)
    if kind not in DTYPES:
        raise Refused(f"it has numbers of the type {kind}, which is not one of {', '.join(DTYPES)}")
    if numel < 0:
        raise Refused("it refers to something that is not a tensor's storage")
    if len(parts) > 5 and parts[5] is not None:
        raise Refused("it has storages that are views of others, as torch wrote them before 0.4")
    return Storage(key, DTYPES[kind], numel)


def _tensor(arguments: Arguments) -> Tensor:
    first, offset, shape, strides = arguments[:4]
    return tensor(expect(first, Storage), offset, expect(shape, tuple), expect(strides, tuple))


def _first_tensor(arguments: Arguments) -> Tensor:
    found: Tensor = expect(arguments[0], Tensor)
    return found


def _typed(arguments: Arguments) -> Any:
    """Return the tensor that torch wraps in a subclass: (function, type, arguments, state)."""
    return construct(arguments[0], arguments[2], new=False)


def _dict(arguments: Arguments) -> dict[Any, Any]:
    """Return an empty dict, or one of a list of pairs that stands in the pickle itself, as Python 2 wrote them."""
    pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
    found = {expect(expect(pair, list)[0], str): pair[1] for pair in pairs}
    pairs.clear()  # each list is read once: a thousand dicts of one list would cost a thousand times its length
    return found


def _encode(arguments: Arguments) -> Any:
    """Return the bytes that Python 3 writes as text for Python 2; arrays read such text themselves."""
    if len(arguments) > 1 and arguments[1] not in ("latin1", "latin-1"):
        raise Refused("it has bytes in an encoding that is not Latin-1")
    return expect(arguments[0], str)


def _array(arguments: Arguments) -> Array:
    return Array()


def _dtype(arguments: Arguments) -> DType:
    return DType(arguments[0])


def _from_buffer(arguments: Arguments) -> Array:
    found = Array()
    data, dtype, shape, order = arguments[:4]
    found.fill(data, dtype, shape, "F" if order == "F" else "C")
    return found


def _reconstructed(arguments: Arguments) -> Object:
    """Return an object of (class, base, state), as pickles before protocol 2 have them."""
    return Object(expect(arguments[0], Name).text)


CALLS: dict[str, Callable[[Arguments], Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _first_tensor,
    "torch._utils._rebuild_parameter_with_state": _first_tensor,
    "torch._tensor._rebuild_from_type_v2": _typed,
    "torch.Size": lambda arguments: arguments[0],
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _dict,
    "collections.Counter": _dict,
    "copyreg._reconstructor": _reconstructed,
    "copy_reg._reconstructor": _reconstructed,
    "_codecs.encode": _encode,
    **{f"{module}.bytes": lambda arguments: b"" for module in ("builtins", "__builtin__")},
    "numpy.ndarray": _array,
    "numpy.dtype": _dtype,
    **{f"numpy.{core}.multiarray._reconstruct": _array for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
}
