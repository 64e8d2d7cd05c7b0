"""A hostile file costs a small multiple of its size: every case is refused, or read, in little memory and time."""

import pickle
import random
import struct
import time
import tracemalloc

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.weights import checkpoint
from tests.models.weights.opcodes import archive, integer, state, tensor, text
from tests.models.weights.test_formats import python2

torch = pytest.importorskip("torch")

PRIME = 2**61 - 1  # Python's hash of an integer is its remainder
FLOOR = 24 << 20  # bytes that even a small file may cost


def long(value):
    """Return the opcode of an integer of any size."""
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def outcome_of(path):
    try:
        return checkpoint.read(path)
    except UserError as error:
        return str(error)


def cost(path):
    """Return the outcome, seconds and peak bytes of reading a file."""
    start = time.process_time()
    outcome = outcome_of(path)
    seconds = time.process_time() - start
    tracemalloc.start()
    outcome_of(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return outcome, seconds, peak


def leaf():
    """Return opcodes of a tensor that is kept in the memo's place 0, and those that fetch it."""
    return tensor() + b"q\x00", b"h\x00"


def long_names():
    kept, again = leaf()
    inner = b"}" + text("a") + kept + b"s" + b"".join(text(f"b{i}") + again + b"s" for i in range(5000))
    return state(inner, "k" * 200_000)


def colliding():
    return b"\x80\x02}(" + b"".join(long(i * PRIME + 7) + b"N" for i in range(1, 20_001)) + b"u."


def colliding_memo():
    return b"\x80\x02N" + b"".join(b"p%d\n" % (i * PRIME + 7) for i in range(1, 20_001)) + b"."


def copied_state():
    """A state of 5,000 attributes that 5,000 scripted modules share."""
    shared = b"}(" + b"".join(text(f"k{i}") + b"N" for i in range(5000)) + b"uq\x01"
    modules = b"".join(b"c__torch__.M\nM\n)\x81h\x01b" for _ in range(5000))
    return b"\x80\x02(" + shared + modules + b"l."


def copied_pairs():
    """A list of 5,000 pairs that 5,000 dicts are made of."""
    shared = b"](" + b"".join(b"](" + text(f"k{i}") + b"Ne" for i in range(5000)) + b"eq\x01"
    dicts = b"".join(b"ccollections\nOrderedDict\nh\x01\x85R" for _ in range(5000))
    return b"\x80\x02(" + shared + dicts + b"l."


def copied_names():
    """Names that are put together from long texts again and again."""
    return b"\x80\x04" + text("m" * 200_000) + b"q\x01" + b"".join(b"h\x01h\x01\x930" for _ in range(5000)) + b"."


def copied_bytes():
    """Arrays that read one long text again and again."""
    whole = python2(np.zeros(2000, np.float32))
    start, end = whole.index(b"cnumpy.core"), whole.rindex(b"s.")
    array = whole[start:end].replace(b"q\x02", b"").replace(b"q\x03", b"").replace(b"q\x04", b"")
    data = b"T" + (8000).to_bytes(4, "little") + bytes(8000)
    first, again = array.replace(data, data + b"q\x09"), array.replace(data, b"h\x09")
    leaves = (text(f"w{i}") + (again if i else first) for i in range(500))
    return b"\x80\x02}(" + b"".join(leaves) + b"u."


CASES = {
    "long keys over many leaves": long_names,
    "colliding integer keys": colliding,
    "colliding places of the memo": colliding_memo,
    "copied state": copied_state,
    "copied pairs": copied_pairs,
    "copied names": copied_names,
    "empty containers": lambda: b"\x80\x02](" + b"}" * 1_500_000 + b"e.",
    "constants": lambda: b"\x80\x02(" + b"N" * 1_500_000 + b"l.",
    "memo": lambda: b"\x80\x04}" + b"\x94" * 1_500_000 + b".",
    "nested tuples": lambda: b"\x80\x02)" + b"\x85" * 130_000 + b".",
    "nested lists": lambda: b"\x80\x02" + b"](" * 100_000 + b"N" + b"e" * 100_000 + b".",
    "claimed bytes": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "claimed text": lambda: b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"x.",
    "claimed shape": lambda: state(tensor(shape=(2**62, 2**62, 2**62, 2**62), strides=(1, 1, 1, 1))),
    "huge integers": lambda: b"\x80\x02(" + (b"\x8a\xff" + b"\x7f" * 255) * 4000 + b"l.",
    "decimal integers": lambda: b"L" + b"9" * 2_000_000 + b"L\n.",
}


@pytest.mark.parametrize("case", CASES)
def test_hostile_files_are_refused_at_little_cost(tmp_path, case):
    pickled, file = CASES[case](), tmp_path / "evil.pt"
    file.write_bytes(pickled) if len(case) % 2 else archive(file, pickled)  # bare, or in a zip file
    outcome, seconds, peak = cost(file)
    assert isinstance(outcome, str) and "\n" not in outcome and len(outcome) < 600
    assert seconds < 5 and peak < FLOOR + 16 * file.stat().st_size


def test_colliding_keys_are_refused_at_once(tmp_path):
    outcome, seconds, _ = cost(archive(tmp_path / "collide.pt", colliding()))
    assert "integer keys" in outcome and seconds < 0.5


def test_one_text_under_many_arrays_is_refused(tmp_path):
    (tmp_path / "many.pkl").write_bytes(copied_bytes())
    outcome, _, peak = cost(tmp_path / "many.pkl")
    assert "overlap" in outcome and peak < FLOOR


def test_a_storage_under_many_tensors_is_refused(tmp_path):
    kept = text("t") + tensor(shape=(6000,), strides=(1,), numel=6000) + b"s"
    more = b"".join(text(f"t{i}") + tensor(shape=(6000,), strides=(1,), numel=6000) + b"s" for i in range(500))
    data = {"0": np.zeros(6000, "<f4").tobytes()}
    outcome, _, _ = cost(archive(tmp_path / "many.pt", b"\x80\x02}" + kept + more + b".", data))
    assert "overlap" in outcome
    few = text("u") + tensor(shape=(6000,), strides=(1,), numel=6000) + b"s"  # tied weights
    assert len(checkpoint.read(archive(tmp_path / "tied.pt", b"\x80\x02}" + kept + few + b".", data))) == 2


def test_large_integers_beside_weights_do_no_harm(tmp_path):
    content = b"\x80\x02}" + text("seed") + integer(2**40) + b"s" + text("w") + tensor() + b"s."
    assert list(checkpoint.read(archive(tmp_path / "ok.pt", content))) == ["w"]


def small_files(folder):
    """Write a file of every format; return the paths and what is in them."""
    content = {"model": {"w": torch.arange(6.0).view(2, 3), "b": torch.ones(2).half()}, "lr": 0.1}
    torch.save(content, folder / "new.pt")
    torch.save(content, folder / "old.pt", _use_new_zipfile_serialization=False)
    arrays = {"model": {name: leaf.numpy() for name, leaf in content["model"].items()}, "epoch": 3}
    for protocol in (0, 2, 5):
        (folder / f"arrays_{protocol}.pkl").write_bytes(pickle.dumps(arrays, protocol))
    (folder / "python2.pkl").write_bytes(python2(np.arange(6, dtype=np.float32)))
    return sorted(folder.iterdir())


def test_damaged_files_of_every_format_give_their_tensors_or_one_sentence(tmp_path):
    rng = random.Random(0)
    (tmp_path / "good").mkdir()
    for file in small_files(tmp_path / "good"):
        good, size = file.read_bytes(), file.stat().st_size
        for trial in range(150):
            data = bytearray(good[: rng.randrange(len(good))] if trial % 5 == 0 else good)
            for _ in range(rng.randint(0 if trial % 5 == 0 else 1, 3)):
                if data:
                    data[rng.randrange(len(data))] = rng.randrange(256)
            (tmp_path / "damaged").write_bytes(data)
            start = time.process_time()
            try:
                arrays = checkpoint.read(tmp_path / "damaged")
            except UserError as error:
                assert "\n" not in str(error)
            else:
                assert sum(array.nbytes for array in arrays.values()) <= 8 * size
            assert time.process_time() - start < 2
