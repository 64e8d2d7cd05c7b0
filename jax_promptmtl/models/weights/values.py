"""The inert values that a checkpoint is read as: names, storages, tensors, arrays, modules, and all that is neither."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

MARK = object()
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
NUMBER = re.compile(r"[<>=|]?(f[248]|[iu][1248]|b1)")  # NumPy's names of what an array of weights may hold
MAX_AXES = 8


class Refused(Exception):
    """The file asks for something that weights do not need."""


@dataclass(frozen=True)
class Name:
    """A global: its dotted name and nothing else."""

    text: str


@dataclass(frozen=True)
class Object:
    """Something that is no weights, such as options or an optimiser; of it only the name of its class is known."""

    kind: str


@dataclass(frozen=True)
class Storage:
    """A flat array in the file."""

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

    @property
    def nbytes(self) -> int:
        """Return the bytes of a copy."""
        return math.prod(self.shape) * np.dtype(self.storage.dtype).itemsize


@dataclass
class Module:
    """A scripted module: attributes by name."""

    fields: dict[str, Any] = field(default_factory=dict)

    def build(self, state: dict[str, Any]) -> None:
        """Take the attributes, without a copy."""
        self.fields = state


@dataclass
class DType:
    """A kind of NumPy's numbers."""

    text: Any

    order: str = "<"

    def build(self, state: Any) -> None:
        """Take the byte order from (version, order, ...)."""
        order = expect(state, tuple)[1] if len(expect(state, tuple)) > 1 else None
        self.order = text_of(order) if text_of(order) in ("<", ">", "=", "|") else "<"

    def numpy(self) -> np.dtype | None:
        """Return NumPy's own, None if arrays of it are not weights."""
        text = text_of(self.text)
        return np.dtype(self.order + text.lstrip("<>=|")) if NUMBER.fullmatch(text) else None


@dataclass
class Array:
    """A NumPy array, whose content is looked at when it is asked for; without one, it is not weights.

    Attributes:
      data: bytes, or text that stands for bytes.
      kind: of its numbers.
      shape: of counts.
      order: C or F.
    """

    data: Any = None
    kind: np.dtype | None = None
    shape: tuple[int, ...] = ()
    order: Any = "C"

    @property
    def nbytes(self) -> int:
        """Return the bytes of a copy."""
        return 0 if self.kind is None else len(self.data)

    def build(self, state: Any) -> None:
        """Take (version, shape, dtype, is Fortran's order, bytes)."""
        if len(expect(state, tuple)) < 4:
            raise Refused("it has an array whose state is not NumPy's")
        shape, dtype, fortran, data = state[-4:]
        self.fill(data, dtype, shape, "F" if fortran is True else "C")

    def fill(self, data: Any, dtype: Any, shape: Any, order: str) -> None:
        """Take the content."""
        kind = dtype.numpy() if isinstance(dtype, DType) else None
        if kind is None:
            return
        if not isinstance(data, bytes | bytearray | str):
            raise Refused("it has an array that is not made of bytes")
        if size_of(expect(shape, tuple)) * kind.itemsize != len(data):
            raise Refused(f"it has an array of {len(data)} bytes with the shape {str(shape)[:60]}")
        self.data, self.kind, self.shape, self.order = data, kind, shape, order

    def numpy(self) -> np.ndarray:
        """Return the content, read-only and in the machine's byte order."""
        data = self.data.encode("latin-1") if isinstance(self.data, str) else self.data
        view = np.frombuffer(data, self.kind).reshape(self.shape, order=self.order)
        view = view.astype(view.dtype.newbyteorder("="), copy=False)
        view.flags.writeable = False
        return view


def text_of(value: Any) -> str:
    """Return text that may be bytes, as Python 2 wrote it; "" for anything else."""
    return value.decode("latin-1") if isinstance(value, bytes) else value if isinstance(value, str) else ""


def expect(value: Any, kind: type) -> Any:
    """Return the value if it is of the plain type `kind`."""
    if type(value) is not kind:
        raise Refused(f"it has a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def size_of(shape: tuple[Any, ...]) -> int:
    """Return the elements of a shape that is made of counts."""
    if len(shape) > MAX_AXES:
        raise Refused(f"it has an array of {len(shape)} axes")
    if any(type(n) is not int or not 0 <= n < 2**63 for n in shape):
        raise Refused("it has a tensor whose shape is not made of counts")
    return math.prod(shape)


def tensor(storage: Storage, offset: Any, shape: tuple[Any, ...], strides: tuple[Any, ...]) -> Tensor:
    """Return a tensor whose every element lies in its storage, none of them invented by a stride of 0."""
    if len(shape) != len(strides) or len(shape) > MAX_AXES:
        raise Refused(f"it has a tensor of {len(shape)} axes and {len(strides)} strides")
    elements = size_of(shape)
    size_of(strides), size_of((offset,))
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if elements > storage.numel or (elements and last >= storage.numel):
        raise Refused(f"it has a tensor of shape {str(shape)[:60]} that is larger than its storage of {storage.numel}")
    return Tensor(storage, offset, shape, strides)
