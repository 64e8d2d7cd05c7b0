"""TensorBoard's event files without TensorFlow or PyTorch: checksummed records of protocol buffers, scalars only.

Formats: tensorflow/core/util/event.proto, core/framework/summary.proto and core/lib/io/record_writer.h.
"""

import pathlib
import struct
import time
from collections.abc import Mapping

VARINT, DOUBLE, BYTES, FLOAT = 0, 1, 2, 5  # wire types of protocol buffers
START = 1  # of SessionLog.SessionStatus


class Events:
    """An event file to append to."""

    def __init__(self, folder: pathlib.Path, *, purge: int):
        """Open a new event file, which sorts after the existing ones.

        Args:
          folder: created if missing.
          purge: TensorBoard hides events of earlier files from this step on.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / f"events.out.tfevents.{time.time_ns()}").open("xb")
        self._write(purge, field(3, BYTES, b"brain.Event:2"))
        self._write(purge, field(7, BYTES, field(1, VARINT, START)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Append the values at a step and flush, so that a kill loses none."""
        named = ((name.encode(), struct.pack("<f", value)) for name, value in values.items())
        summary = (field(1, BYTES, field(1, BYTES, name) + field(2, FLOAT, value)) for name, value in named)
        self._write(step, field(5, BYTES, b"".join(summary)))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, step: int, what: bytes) -> None:
        event = field(1, DOUBLE, struct.pack("<d", time.time())) + field(2, VARINT, step) + what
        size = struct.pack("<Q", len(event))
        self._file.write(size + checksum(size) + event + checksum(event))


def varint(number: int) -> bytes:
    """Encode a non-negative integer as a protocol-buffer varint: groups of seven bits, lowest first.

    >>> varint(1), varint(300)
    (b'\\x01', b'\\xac\\x02')
    """
    low, high = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(high) if high else bytes([low])


def field(number: int, kind: int, value: int | bytes) -> bytes:
    """Encode one field of a message; `value` is packed bytes unless it is an integer."""
    content = varint(value) if isinstance(value, int) else value
    return varint(number << 3 | kind) + (varint(len(content)) if kind == BYTES else b"") + content


def checksum(content: bytes) -> bytes:
    """Return the masked CRC-32C (Castagnoli) of a part of a record.

    >>> crc = 0xE3069283  # of these digits, by RFC 3720
    >>> checksum(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8 & 2**32 - 1).to_bytes(4, "little")
    True
    """
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF)


def shifted(byte: int) -> int:
    """Return the CRC-32C table entry of a byte."""
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


TABLE = [shifted(byte) for byte in range(256)]
