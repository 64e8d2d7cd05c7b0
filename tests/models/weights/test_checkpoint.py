"""The torch-free reader against torch's own files, and against files that mean harm."""

import os
import pickle
import random
import struct
import zipfile

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.weights import checkpoint
from tests.models.weights.opcodes import archive, integers, state, tensor, text

torch = pytest.importorskip("torch")


class Small(torch.nn.Module):
    """Nested modules, several precisions, a scalar buffer, and attributes that are not tensors."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
        self.low = torch.nn.LayerNorm(3).half()
        self.brain = torch.nn.Linear(2, 2).bfloat16()
        self.high = torch.nn.Parameter(torch.randn(3, 2, dtype=torch.float64).T)  # not contiguous
        self.register_buffer("resolution", torch.tensor(224))
        self.heads = 4
        self.sizes = [1.0, 2.0]

    def forward(self, x):
        return self.inner(x)


def files(module, folder):
    """Write the module in every way that is in use and return the paths."""
    paths = {name: folder / f"{name}.pt" for name in ("state", "checkpoint", "parameters", "traced", "scripted")}
    torch.save(module.state_dict(), paths["state"])
    extras = {"epoch": 3, "name": "run", "lr": 0.1, "loss": None, "ok": True, "shape": torch.Size([2])}
    torch.save({"state_dict": module.state_dict(), **extras}, paths["checkpoint"])
    torch.save(dict(module.named_parameters()) | dict(module.named_buffers()), paths["parameters"])
    torch.jit.trace(module, torch.zeros(1, 2)).save(paths["traced"])
    torch.jit.script(module).save(paths["scripted"])
    return paths


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    torch.manual_seed(0)
    module = Small()
    return module, files(module, tmp_path_factory.mktemp("torch"))


@pytest.mark.parametrize("kind", ["state", "checkpoint", "parameters", "traced", "scripted"])
def test_every_tensor_equals_torch(small, kind):
    module, paths = small
    arrays, expected = checkpoint.read(paths[kind]), module.state_dict()
    if kind == "checkpoint":
        arrays = {name.removeprefix("state_dict."): array for name, array in arrays.items()}
    assert arrays.keys() == expected.keys()
    for name, leaf in expected.items():
        assert str(arrays[name].dtype) == str(leaf.dtype).removeprefix("torch."), name
        np.testing.assert_array_equal(arrays[name].astype(np.float64), leaf.double().numpy(), err_msg=name)
        assert not arrays[name].flags.writeable


def test_every_storage_type(tmp_path):
    kinds = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
    tensors = {str(kind): torch.arange(5).to(kind) for kind in kinds} | {"empty": torch.zeros(0, 4)}
    torch.save(tensors, tmp_path / "t.pt")
    arrays = checkpoint.read(tmp_path / "t.pt")
    for name, leaf in tensors.items():
        np.testing.assert_array_equal(arrays[name], leaf.numpy())


def test_views_share_their_storage(tmp_path):
    flat = torch.arange(12.0)
    torch.save({"all": flat, "row": flat.view(3, 4)[1], "column": flat.view(3, 4)[:, 2]}, tmp_path / "v.pt")
    arrays = checkpoint.read(tmp_path / "v.pt")
    assert arrays["row"].tolist() == [4, 5, 6, 7]
    assert arrays["column"].tolist() == [2, 6, 10]
    assert np.shares_memory(arrays["all"], arrays["column"])


# --- hostile and damaged files ----------------------------------------------------------------------------------------


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_hand_written_archive_is_readable(tmp_path):
    arrays = checkpoint.read(archive(tmp_path / "ok.pt", state(tensor())))
    assert arrays["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


def ran(tmp_path):
    return tmp_path / "executed"


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@pytest.mark.parametrize("function", [os.system, eval, exec, getattr, __import__, open, torch.load, pickle.loads])
def test_calls_are_refused_and_not_made(tmp_path, function, protocol):
    argument = f"touch {ran(tmp_path)}" if function is os.system else f"open({str(ran(tmp_path))!r}, 'w')"
    arguments = (str(ran(tmp_path)), "w") if function is open else (argument,)
    for content in (Call(function, *arguments), {"state_dict": {"w": Call(function, *arguments)}}):
        file = archive(tmp_path / "evil.pt", pickle.dumps(content, protocol))
        with pytest.raises(UserError, match="Refused to read"):
            checkpoint.read(file)
    assert not ran(tmp_path).exists()


def test_the_same_pickle_does_harm_when_unpickled(tmp_path):
    """Guard against a vacuous test above: the payload works where it is executed."""
    pickle.loads(pickle.dumps(Call(os.system, f"touch {ran(tmp_path)}")))
    assert ran(tmp_path).exists()


ATTRIBUTE = b"cbuiltins\ngetattr\n(ctorch\nFloatStorage\n" + text("__subclasses__") + b"tR"
HOSTILE = {
    "dotted name": (
        state(b"\x80\x04" + text("torch") + text("os.system") + b"\x93" + text("true") + b"\x85R"),
        "torch.os.system",
    ),
    "getattr": (state(ATTRIBUTE), "builtins.getattr"),
    "prefix trick": (state(b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n"), "__globals__"),
    "script class with arguments": (state(b"c__torch__.posix\nsystem\n" + text("true") + b"\x85R"), "calls"),
    "setstate on a global": (state(b"ctorch\nFloatStorage\n}" + text("dtype") + text("x") + b"sb"), "dict belongs"),
    "attributes through slots": (
        state(b"c__torch__.M\nM\n)\x81N}" + text("__class__") + b"Ns\x86b"),
        "tuple where a dict",
    ),
    "call of a value": (state(text("os.system") + text("true") + b"\x85R"), "Name belongs"),
    "opcode INST": (state(b"(" + text("true") + b"iposix\nsystem\n"), "opcode INST"),
    "opcode OBJ": (state(b"(c__torch__.M\nM\no"), "opcode OBJ"),
    "opcode EXT1": (state(b"\x82\x01"), "opcode EXT1"),
    "opcode LONG4": (state(b"\x8b\x01\x00\x00\x00\x05"), "opcode LONG4"),
    "foreign persistent id": (state(b"(" + text("module") + b"ctorch\nFloatStorage\nNNNtQ"), "no tensors"),
    "unknown persistent id": (state(b"(" + text("thing") + b"NNNNtQ"), "not a tensor's storage"),
    "tuple as a key": (b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"Ns.", "dict key of type tuple"),
    "stack underflow": (b"\x80\x02\x86.", "values that are not there"),
    "values below the mark": (b"\x80\x02N(\x86.", "values that are not there"),
    "no tensors": (state(b"N"), "no tensors"),
    "no end": (b"\x80\x02}", "Cannot read|no end"),
    "contains itself": (b"\x80\x02}q\x00" + text("a") + b"h\x00s.", "nested without end"),
    "shape over the storage": (state(tensor(shape=(2, 4))), "larger than its storage"),
    "offset over the storage": (state(tensor(offset=1)), "larger than its storage"),
    "strides over the storage": (state(tensor(strides=(4, 1))), "larger than its storage"),
    "invented elements": (state(tensor(shape=(2**40, 3), strides=(0, 0))), "larger than its storage"),
    "negative stride": (state(tensor(offset=5, strides=(-3, -1))), "not made of counts"),
    "negative shape": (state(tensor(shape=(-2, -3))), "not made of counts"),
    "nine axes": (state(tensor(shape=(1,) * 9, strides=(1,) * 9)), "9 axes"),
    "ranks differ": (state(tensor(strides=(1,))), "2 axes and 1 strides"),
    "claimed storage": (state(tensor(shape=(2**31, 4), strides=(4, 1), numel=2**33)), "has 6 elements and not"),
    "wrong precision": (state(tensor(kind="DoubleStorage")), "has 3 elements and not 6"),
    "missing storage": (state(tensor(key="1")), "Cannot read"),
    "path as a key": (state(tensor(key="../data.pkl")), "Cannot read"),
    "unknown storage": (state(tensor(kind="QInt8Storage")), "torch.QInt8Storage"),
    "huge memo": (b"\x80\x02}r\xff\xff\xff\x7f" + text("w") + b"Ns.", "no tensors"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickles_are_refused(tmp_path, case):
    pickled, message = HOSTILE[case]
    with pytest.raises(UserError, match=message) as caught:
        checkpoint.read(archive(tmp_path / "evil.pt", pickled))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_a_billion_laughs_are_refused(tmp_path):
    level = b"}q\x00" + text("w") + tensor() + b"s"
    for i in range(1, 40):
        level += b"0}q" + bytes([i]) + b"".join(text(key) + b"h" + bytes([i - 1]) + b"s" for key in "abcdefgh")
    with pytest.raises(UserError, match=r"opcode POP"):
        checkpoint.read(archive(tmp_path / "evil.pt", b"\x80\x02" + level + b"."))
    level = level.replace(b"0}q", b"}q")  # leave the lower levels on the stack instead
    with pytest.raises(UserError, match="nested without end"):
        checkpoint.read(archive(tmp_path / "evil.pt", b"\x80\x02" + level + b"."))
    shape = b"(" + b"K\x01t" + b"q\x00" + b"".join(b"(h%ch%ct" % (i, i) + b"q%c" % (i + 1) for i in range(40))
    nested = tensor().replace(integers((2, 3)), shape)
    with pytest.raises(UserError):  # a shape that would print as 2 ** 40 digits
        checkpoint.read(archive(tmp_path / "evil.pt", state(nested)))


def test_zip_tricks_are_refused(tmp_path):
    bomb = archive(tmp_path / "bomb.pt", state(tensor(numel=2**25)), {"0": bytes(2**27)}, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 2**20
    with pytest.raises(UserError, match="compressed"):
        checkpoint.read(bomb)
    with pytest.raises(UserError, match="over 32 MiB"):
        checkpoint.read(archive(tmp_path / "long.pt", b"\x80\x02" + b"N" * (33 << 20)))
    with pytest.raises(UserError, match="big-endian"):
        checkpoint.read(archive(tmp_path / "big.pt", state(tensor()), extra={"byteorder": b"big"}))
    with zipfile.ZipFile(archive(tmp_path / "two.pt", state(tensor())), "a") as z:
        z.writestr("other/data.pkl", b"N.")
    with pytest.raises(UserError, match="2 pickles"):
        checkpoint.read(tmp_path / "two.pt")
    claimed = bytearray(archive(tmp_path / "c.pt", state(tensor())).read_bytes())
    entry = claimed.rindex(b"archive/data/0") - 46  # the central directory's record of the storage
    claimed[entry + 24 : entry + 28] = struct.pack("<I", 2**31)
    (tmp_path / "c.pt").write_bytes(claimed)
    with pytest.raises(UserError, match="claim more bytes"):
        checkpoint.read(tmp_path / "c.pt")


def test_other_files_are_one_sentence(tmp_path, small):
    with pytest.raises(UserError, match="No weights at"):
        checkpoint.read(tmp_path / "missing.pt")
    torch.save(small[0], tmp_path / "module.pt")
    with pytest.raises(UserError, match=r"no tensors but .*Small: save the state_dict\(\)"):
        checkpoint.read(tmp_path / "module.pt")
    with zipfile.ZipFile(tmp_path / "empty.pt", "w"):
        pass
    with pytest.raises(UserError, match="0 pickles"):
        checkpoint.read(tmp_path / "empty.pt")


def test_damage_never_gives_other_values(small, tmp_path):
    """Cut and flipped files either fail with one sentence or still hold exactly the same tensors."""
    good = small[1]["state"].read_bytes()
    expected = checkpoint.read(small[1]["state"])
    rng = random.Random(0)
    damaged = [good[: rng.randrange(len(good))] for _ in range(30)]
    for _ in range(300):
        flipped = bytearray(good)
        flipped[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    refused = 0
    for data in damaged:
        (tmp_path / "d.pt").write_bytes(data)
        try:
            arrays = checkpoint.read(tmp_path / "d.pt")
        except UserError:
            refused += 1
            continue
        assert {name: array.tobytes() for name, array in arrays.items()} == {
            n: a.tobytes() for n, a in expected.items()
        }
    assert refused >= 30


def test_pickle_fuzz_raises_nothing_but_user_errors(tmp_path):
    """The zip's own checksum hides the pickle from the test above, so damage it before it is packed."""
    good = state(tensor())
    rng = random.Random(1)
    for _ in range(1500):
        data = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(2, len(data))] = rng.randrange(256)
        try:
            arrays = checkpoint.read(archive(tmp_path / "f.pt", bytes(data)))
        except UserError:
            continue
        assert all(array.size <= 12 for array in arrays.values())
