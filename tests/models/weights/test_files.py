"""Files and folders of weights: where they are found, several files that are one, what is said of others."""

import hashlib
import json
import pathlib
import re

import numpy as np
import pytest
import safetensors.numpy

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.weights import files

torch = pytest.importorskip("torch")
ROOT = pathlib.Path(__file__).parents[3]


def leaves():
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in (("a", (3, 2)), ("b", 4), ("c", ()))}


def write_shards(folder, kind):
    """Write leaves as two files and their index, as `save_pretrained(max_shard_size=...)` does."""
    whole, stem = leaves(), {"safetensors": "model", "bin": "pytorch_model"}[kind]
    places = {name: f"{stem}-0000{1 + (name == 'c')}-of-00002.{kind}" for name in whole}
    for place in set(places.values()):
        part = {name: leaf for name, leaf in whole.items() if places[name] == place}
        if kind == "bin":
            torch.save({name: torch.tensor(leaf) for name, leaf in part.items()}, folder / place)
        else:
            safetensors.numpy.save_file(part, folder / place)
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder / f"{stem}.{kind}.index.json"


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_weights_in_several_files(tmp_path, kind):
    index = write_shards(tmp_path, kind)
    found = files.read_state(files.locate(tmp_path))
    assert files.locate(tmp_path) == files.locate(index) == index
    assert found.keys() == leaves().keys()
    for name, leaf in leaves().items():
        np.testing.assert_array_equal(found[name], leaf)
    parts = sorted(tmp_path.glob(f"*.{kind}"))
    each = "".join(hashlib.sha256(part.read_bytes()).hexdigest() for part in parts)
    assert files.digest(index) == hashlib.sha256(each.encode()).hexdigest()
    parts[1].unlink()
    with pytest.raises(UserError, match=r"1 of the 2 files .* are missing \(.*00002-of-00002"):
        files.read_state(index)


def test_an_index_that_lies(tmp_path):
    index = write_shards(tmp_path, "safetensors")
    told = json.loads(index.read_text())
    first = told["weight_map"]["a"]
    for wrong, message in (
        ({"a": "../model.safetensors"}, "no file beside it"),
        ({"a": 3}, "no file beside it"),
        ({"a": index.name}, "no file beside it"),
        ({"other": first}, "lacks 'other'"),
        ({}, "no weight_map"),
        ([], "no weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": wrong}))
        with pytest.raises(UserError, match=message):
            files.read_state(index)


def test_a_folder_with_several_files_asks_which(tmp_path):
    with pytest.raises(UserError, match=r"No weights at .*\.pkl"):
        files.locate(tmp_path)
    for name in ("epoch_1.pth", "epoch_2.pth.tar"):
        torch.save({"w": torch.zeros(2)}, tmp_path / name)
    with pytest.raises(UserError, match=r"2 files of weights \(epoch_1\.pth, epoch_2\.pth\.tar\)"):
        files.locate(tmp_path)
    (tmp_path / "epoch_1.pth").unlink()
    assert files.locate(tmp_path).name == "epoch_2.pth.tar"


def test_what_a_file_is_counts_and_not_its_ending(tmp_path):
    safetensors.numpy.save_file(leaves(), tmp_path / "weights.pth")
    torch.save({"a": torch.ones(2)}, tmp_path / "weights.safetensors")
    assert files.read_state(tmp_path / "weights.pth").keys() == leaves().keys()
    assert files.read_state(tmp_path / "weights.safetensors")["a"].tolist() == [1, 1]
    (tmp_path / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="Git LFS"):
        files.read_state(tmp_path / "pointer.safetensors")


@pytest.mark.parametrize("page", ["weights.md", "video_data.md"])
def test_every_row_of_the_docs_has_its_test(page):
    text = (ROOT / "docs" / page).read_text("utf-8")
    cells = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`((?:, `::\w+`)*)", text)
    assert len(cells) >= 6
    for file, first, more in cells:
        source = (ROOT / file).read_text("utf-8")
        assert all(f"def {name}(" in source for name in [first, *re.findall(r"::(\w+)", more)]), file
