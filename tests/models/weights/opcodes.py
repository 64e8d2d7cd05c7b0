"""Write checkpoints opcode by opcode."""

import struct
import zipfile

import numpy as np


def archive(path, pickled, storages=None, compression=zipfile.ZIP_STORED, extra=None):
    """Write a PyTorch zip file by hand."""
    with zipfile.ZipFile(path, "w", compression) as z:
        z.writestr("archive/data.pkl", pickled)
        for key, data in (storages or {"0": np.arange(6, dtype="<f4").tobytes()}).items():
            z.writestr(f"archive/data/{key}", data)
        for name, data in (extra or {}).items():
            z.writestr(f"archive/{name}", data)
    return path


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value):
    return b"J" + struct.pack("<i", value) if abs(value) < 2**31 else b"\x8a\x08" + struct.pack("<q", value)


def integers(values):
    return b"(" + b"".join(map(integer, values)) + b"t"


def tensor(offset=0, shape=(2, 3), strides=(3, 1), numel=6, key="0", kind="FloatStorage"):
    """Return the pickle opcodes of one tensor."""
    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + integer(numel) + b"tQ"
    arguments = (
        storage + integer(offset) + integers(shape) + integers(strides) + b"\x89" + b"ccollections\nOrderedDict\n)R"
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def state(value, name="w"):
    """Return a whole pickle of {name: value}."""
    return b"\x80\x02}" + text(name) + value + b"s."
