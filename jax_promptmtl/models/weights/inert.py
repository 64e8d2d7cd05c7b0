"""Read pickles as inert data: nothing in them is imported, called or executed.

An interpreter for the opcodes that PyTorch, NumPy and their users' checkpoints have. A global is only its name, see
`names`; what is no number, text, tensor or plain container becomes an `Object` that nobody looks into. Memory and time
are bounded by the length of the pickle: opcodes are counted, and what could be copied again and again is not copied.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from jax_promptmtl.models.weights.values import MARK, Array, DType, Module, Name, Object, Refused, expect

FEWEST, SHARE, MOST = 100_000, 8, 2_000_000  # opcodes that any file may have, bytes for each one more, and of any size
MAX_KEY = 2**31  # of integer keys and of the memo: larger ones can be made to collide
CONSTANTS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class Construct(Protocol):
    """What calls stand for; see `names.construct`."""

    def __call__(self, name: Any, arguments: Any, *, new: bool) -> Any:
        """Return the inert value."""


@dataclass(frozen=True)
class Globals:
    """What a pickle may refer to; see the functions of `names`.

    Attributes:
      named: text -> a global that may be named.
      construct: what a call of one stands for.
      storage: persistent id -> what it stands for.
    """

    named: Callable[[str], Name]
    construct: Construct
    storage: Callable[[Any], Any]


class Bounded:
    """What `pickletools` reads from; it never asks the file for more than is left."""

    def __init__(self, stream: BinaryIO, size: int):
        self.stream, self.size = stream, size

    def read(self, n: int) -> bytes:
        """Read at most n bytes."""
        return self.stream.read(min(n, self.size - self.stream.tell()))

    def readline(self) -> bytes:
        """Read to the end of the line."""
        return self.stream.readline()

    def tell(self) -> int:
        """Return the place in the file."""
        return self.stream.tell()


def interpret(stream: BinaryIO, size: int, known: Globals, whole: int = 0) -> Any:
    """Return the value of the pickle at which the stream stands, and leave the stream behind it.

    Args:
      stream: seekable.
      size: of the stream in bytes.
      known: what the pickle may refer to.
      whole: size of the file that the stream is a part of; an opcode of a checkpoint has tens of bytes of tensors.

    Raises:
      Refused: the pickle asks for something that weights do not need.
    """
    machine, most = Machine(known), min(MOST, FEWEST + max(size, whole) // SHARE)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(Bounded(stream, size))):  # type: ignore[arg-type]
        if count > most:
            raise Refused(f"its pickle has over {most:,} opcodes, too many for so few weights")
        if opcode.name == "STOP":
            return machine.pop(1)[0]
        machine.run(opcode.name, argument)
    raise Refused("its pickle has no end")


class Machine:
    """A stack and a memo of inert values."""

    def __init__(self, known: Globals):
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.known = known

    def run(self, opcode: str, argument: Any) -> None:
        """Run one opcode."""
        if opcode in CONSTANTS:
            self.stack.append(argument)
        elif opcode in LITERALS:
            self.stack.append(LITERALS[opcode])
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            place = len(self.memo) if opcode == "MEMOIZE" else argument
            if place > 2 * MAX_KEY:
                raise Refused("its memo has a place that no pickler writes")
            self.memo[place] = self.stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif opcode not in ("PROTO", "FRAME"):
            self.call(opcode, argument)

    def call(self, opcode: str, argument: Any) -> None:
        """Run one opcode that has to do with globals and what they build."""
        match opcode:
            case "GLOBAL":
                self.stack.append(self.known.named(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                module, name = (expect(part, str) for part in self.pop(2))
                self.stack.append(self.known.named(f"{module[:300]}.{name[:300]}"))
            case "BINPERSID":
                self.stack.append(self.known.storage(self.pop(1)[0]))
            case "REDUCE" | "NEWOBJ":
                self.stack.append(self.known.construct(*self.pop(2), new=opcode == "NEWOBJ"))
            case "NEWOBJ_EX":
                self.stack.append(self.known.construct(*self.pop(3)[:2], new=True))
            case "BUILD":
                self.build(*self.pop(1))
            case _:
                self.assemble(opcode)

    def assemble(self, opcode: str) -> None:
        """Run one opcode that builds or fills a container on top of the stack."""
        match opcode:
            case "MARK":
                self.stack.append(MARK)
            case "EMPTY_DICT":
                self.stack.append({})
            case "DICT":
                items = self.pop_mark()
                self.stack.append({})
                self.fill(items)
            case "EMPTY_LIST":
                self.stack.append([])
            case "LIST":
                self.stack.append(self.pop_mark())
            case "EMPTY_SET":
                self.stack.append(Object("builtins.set"))
            case "FROZENSET":
                self.pop_mark()
                self.stack.append(Object("builtins.frozenset"))
            case "TUPLE":
                self.stack.append(tuple(self.pop_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(tuple(self.pop(int(opcode[-1]))))
            case "APPEND" | "APPENDS" | "ADDITEMS":
                values = self.pop(1) if opcode == "APPEND" else self.pop_mark()
                if not isinstance(self.stack[-1], Object):
                    expect(self.stack[-1], list).extend(values)
            case "SETITEM" | "SETITEMS":
                self.fill(self.pop_mark() if opcode == "SETITEMS" else self.pop(2))
            case _:
                raise Refused(f"its pickle has the opcode {opcode}")

    def fill(self, items: list[Any]) -> None:
        """Put keys and values, one after the other, into the dict on top of the stack."""
        if not isinstance(self.stack[-1], Object):
            keys = [key_of(key) for key in items[::2]]
            expect(self.stack[-1], dict).update(zip(keys, items[1::2], strict=True))

    def build(self, state: Any) -> None:
        """Give its state to the object on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, Array | DType):
            target.build(state)
        elif isinstance(target, Module):
            target.build(expect(state, dict))
        elif not isinstance(target, Object):
            expect(target, dict)  # an OrderedDict's attributes, such as _metadata: not weights

    def pop(self, n: int) -> list[Any]:
        """Remove the top `n` values."""
        if len(self.stack) < n or any(value is MARK for value in self.stack[-n:]):
            raise Refused("its pickle takes values that are not there")
        values = self.stack[-n:]
        del self.stack[-n:]
        return values

    def pop_mark(self) -> list[Any]:
        """Remove the values above the topmost mark, and the mark."""
        values = []
        while (value := self.stack.pop()) is not MARK:
            values.append(value)
        return values[::-1]


def key_of(value: Any) -> Any:
    """Return a dict key; a nested tuple overflows the C stack when hashed, and large integers collide at will."""
    if not isinstance(value, str | int | float | bytes | Name | None):
        raise Refused(f"it has a dict key of type {type(value).__name__}")
    if isinstance(value, int) and abs(value) >= MAX_KEY:
        raise Refused("it has integer keys that no checkpoint has")
    return value
