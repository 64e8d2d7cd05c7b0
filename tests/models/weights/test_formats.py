"""Checkpoints as trainings write them, read without torch, against torch's own reading and NumPy's."""

import argparse
import collections
import functools
import pathlib
import pickle
import types
import typing

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.weights import checkpoint

torch = pytest.importorskip("torch")


class DictConfig(dict):
    """Options as a package of its own keeps them: a dict with attributes."""

    def __init__(self, **options):
        super().__init__(options)
        self.flags = {"readonly": True}


def state():
    """Return tensors of several types, two of which share their storage."""
    torch.manual_seed(0)
    flat = torch.randn(12)
    tensors = {"fc.weight": torch.randn(4, 3), "fc.bias": torch.randn(4).half(), "step": torch.tensor(7)}
    tensors |= {"norm.weight": torch.randn(3).bfloat16(), "row": flat.view(3, 4)[1], "column": flat.view(3, 4)[:, 2]}
    return collections.OrderedDict(tensors | {"empty": torch.zeros(0, 2), "mask": torch.tensor([True, False])})


def training():
    """Return what a training of several kinds saves beside its weights."""
    weight = torch.nn.Parameter(torch.randn(5, 5))
    optimizer = torch.optim.AdamW([weight])
    (weight**2).sum().backward()
    optimizer.step()
    counts = collections.defaultdict(list, a=[1])
    options = argparse.Namespace(lr=1e-3, layers=[1, 2], nested=argparse.Namespace(path="x", none=None))
    return {
        "model": state(),
        "optimizer": optimizer.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "args": options,
        "config": DictConfig(width=3, parts=DictConfig(depth=2)),
        "simple": types.SimpleNamespace(a=1, kind=typing.Optional[int], parts=list[int]),  # noqa: UP045
        "path": pathlib.PurePosixPath("runs/a"),
        "module": torch.nn.GELU(),
        "schedule": functools.partial(torch.nn.functional.relu, inplace=True),
        "counts": counts,
        "milestones": collections.Counter([6, 6, 8]),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "shapes": [collections.OrderedDict(w=torch.Size([2, 3]))],
        "numpy": {"rng": np.random.RandomState(0).get_state(), "best": np.float64(3.5)},
        "callbacks": {argparse.Namespace: {"best": 1.0}, "set": {1, 2}, "frozen": frozenset([3])},
        "epoch": 3,
        "negative": -(2**40),
    }


def assert_same(arrays, tensors, prefix):
    found = {name.removeprefix(prefix): leaf for name, leaf in arrays.items() if name.startswith(prefix)}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert str(found[name].dtype) == str(tensor.dtype).removeprefix("torch."), name
        assert found[name].shape == tuple(tensor.shape)
        np.testing.assert_array_equal(found[name].astype(np.float64), tensor.double().numpy(), err_msg=name)
        assert not found[name].flags.writeable


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_weights_among_what_a_training_saves(tmp_path, new):
    content = training()
    torch.save(content, tmp_path / "checkpoint.pth", _use_new_zipfile_serialization=new)
    again = torch.load(tmp_path / "checkpoint.pth", weights_only=False)
    arrays = checkpoint.read(tmp_path / "checkpoint.pth")
    assert_same(arrays, again["model"], "model.")
    assert not any(name.startswith("optimizer") for name in arrays)
    assert np.shares_memory(arrays["model.row"], arrays["model.column"])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_every_protocol_of_torch(tmp_path, new, protocol):
    file = tmp_path / "epoch-120.model"
    torch.save(state(), file, pickle_protocol=protocol, _use_new_zipfile_serialization=new)
    assert_same(checkpoint.read(file), torch.load(file, weights_only=False), "")


def test_parameters_with_attributes_and_subclasses(tmp_path):
    named = torch.nn.Parameter(torch.randn(2, 2))
    named.tag = "decay"
    buffer = torch.nn.Buffer(torch.randn(3))
    torch.save({"a": named, "b": buffer}, tmp_path / "p.pt")
    arrays = checkpoint.read(tmp_path / "p.pt")
    np.testing.assert_array_equal(arrays["a"], named.detach().numpy())
    np.testing.assert_array_equal(arrays["b"], buffer.numpy())


def test_deepspeed(tmp_path):
    content = {"module": state(), "optimizer": None, "lr_scheduler": {"last": 3}, "ds_version": "0.14", "ds_config": {}}
    content |= {"param_shapes": [collections.OrderedDict(w=torch.Size([2]))], "args": training()["args"]}
    torch.save(content, tmp_path / "mp_rank_00_model_states.pt")
    assert_same(checkpoint.read(tmp_path / "mp_rank_00_model_states.pt"), content["module"], "module.")


# --- pickles of arrays ------------------------------------------------------------------------------------------------


def arrays_of():
    rng = np.random.default_rng(0)
    found = {"a.weight": rng.standard_normal((3, 4)).astype(np.float32), "b": rng.standard_normal(5)}
    found |= {"fortran": np.asfortranarray(found["a.weight"]), "big": found["b"].astype(">f8"), "n": np.arange(3)}
    return found | {
        "half": found["b"].astype(np.float16),
        "scalar": np.array(2.5, np.float32),
        "none": np.zeros((0, 3)),
    }


@pytest.mark.parametrize("protocol", range(6))
def test_pickled_arrays_as_detectron2_has_them(tmp_path, protocol):
    arrays = arrays_of()
    content = {"model": arrays, "__author__": "third_party", "matching_heuristics": True, "words": np.array(["a"])}
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps(content, protocol))
    found = checkpoint.read(tmp_path / "model_final.pkl")
    assert found.keys() == {f"model.{name}" for name in arrays}
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[f"model.{name}"], array, err_msg=name)
        assert found[f"model.{name}"].dtype.isnative


def python2(values):
    """Return the pickle that Python 2's cPickle wrote of {"w": float32 array}, whose bytes are text of Latin-1."""
    data, rows = values.astype("<f4").tobytes(), len(values)
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nq\x04U\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    raw = b"T" + len(data).to_bytes(4, "little") + data
    return (
        b"\x80\x02}q\x01U\x01w"
        + array
        + b"(K\x01J"
        + rows.to_bytes(4, "little")
        + b"\x85"
        + dtype
        + b"\x89"
        + raw
        + b"tbs."
    )


def test_pickles_of_python_2(tmp_path):
    values = np.random.default_rng(0).standard_normal(60).astype(np.float32)
    (tmp_path / "R-50.pkl").write_bytes(python2(values))
    np.testing.assert_array_equal(pickle.loads(python2(values), encoding="latin1")["w"], values)
    np.testing.assert_array_equal(checkpoint.read(tmp_path / "R-50.pkl")["w"], values)


# --- what is refused has its true reason ------------------------------------------------------------------------------

OTHERS = {
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "pointer of Git LFS"),
    "page": (b"<!DOCTYPE html><html>404</html>", "a web page"),
    "json": (b'{"error": 1}', "a JSON file"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
    "gguf": (b"GGUF" + bytes(64), "GGUF"),
    "gzip": (b"\x1f\x8b" + bytes(64), "gzip"),
    "npy": (b"\x93NUMPY" + bytes(64), "NumPy array"),
    "tar": (bytes(257) + b"ustar" + bytes(250), "before 0.2"),
    "empty": (b"", "it is empty"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files_are_called_what_they_are(tmp_path, kind):
    data, message = OTHERS[kind]
    (tmp_path / "weights.pth").write_bytes(data)
    with pytest.raises(UserError, match=message):
        checkpoint.read(tmp_path / "weights.pth")


def test_whole_models_quantised_and_half_files(tmp_path):
    for new in (True, False):
        torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "m.pt", _use_new_zipfile_serialization=new)
        with pytest.raises(UserError, match=r"no tensors but torch\.nn.*Linear: save the state_dict\(\)"):
            checkpoint.read(tmp_path / "m.pt")
    torch.save({"w": torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8)}, tmp_path / "q.pt")
    with pytest.raises(UserError, match=r"QInt8Storage"):
        checkpoint.read(tmp_path / "q.pt")
    torch.save(state(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "old.pt").read_bytes()
    (tmp_path / "old.pt").write_bytes(whole[:-9])
    with pytest.raises(UserError, match=r"cut off|damaged"):
        checkpoint.read(tmp_path / "old.pt")
