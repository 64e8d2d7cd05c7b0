"""Model files of our own: what is written is read, and weights that their card does not vouch for are refused."""

import hashlib
import json

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video.model_file import has_card, read_model, write_model

PARAMS = {"a": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "b": np.array([1.5], np.float32)}


def test_what_is_written_is_read(tmp_path):
    path = write_model(tmp_path / "models", "own", PARAMS, {"kind": "recognition", "classes": ["é"]})
    params, card = read_model(path)
    np.testing.assert_array_equal(params["a"]["kernel"], PARAMS["a"]["kernel"])
    np.testing.assert_array_equal(params["b"], PARAMS["b"])
    digest = hashlib.sha256()  # by hand: paths in order, shapes, dtypes and bytes
    for name, leaf in (("a/kernel", PARAMS["a"]["kernel"]), ("b", PARAMS["b"])):
        digest.update(f"{name} {leaf.shape} float32".encode() + leaf.tobytes())
    assert card["sha256"] == digest.hexdigest() and card["parameters"] == 7
    assert (card["task"], card["kind"], card["classes"]) == ("own", "recognition", ["é"])


def test_a_card_makes_a_file_ours(tmp_path):
    path = write_model(tmp_path, "own", PARAMS, {})
    assert has_card(path) and not has_card(tmp_path / "own.json") and not has_card("")
    path.with_suffix(".json").unlink()
    assert not has_card(path)


def test_weights_that_the_card_does_not_vouch_for_are_refused(tmp_path):
    path = write_model(tmp_path, "own", PARAMS, {})
    whole, card = path.read_bytes(), path.with_suffix(".json")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=r"own.safetensors' is not what its card says: other bytes; get it anew\.$"):
        read_model(path, advice="get it anew")
    path.write_bytes(whole)
    with pytest.raises(UserError, match="is not what its card says: b has shape"):
        read_model(path, shapes=PARAMS | {"b": np.zeros(2)})
    content = json.loads(card.read_text())
    for text in (json.dumps({k: v for k, v in content.items() if k != "sha256"}), "{", "[]", None):
        card.unlink() if text is None else card.write_text(text)
        with pytest.raises(UserError, match=r"Cannot read the model .*own.safetensors.*; train it again\.$"):
            read_model(path)
    path.write_bytes(b"x")
    with pytest.raises(UserError, match="Cannot read the model"):
        read_model(path)
