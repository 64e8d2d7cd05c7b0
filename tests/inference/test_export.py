"""Exported classifiers: they run with jax alone and say what the trained model says; prompts come back bit for bit."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from jax import export as jax_export

import jax_promptmtl
from jax_promptmtl import export as door
from jax_promptmtl.core import command
from jax_promptmtl.inference import export, image_predictor
from tests.tiny import CLASSES, TASKS


@pytest.fixture(scope="module")
def exported(home, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "out"
    assert command.run(door.start, [str(home / "work"), f"--out={out}", "--task=ink,oil"]) == 0
    return out


def test_files_of_all_platforms_and_any_batch_size(home, exported):
    model = jax_promptmtl.load(home / "work")
    for task in ("ink", "oil"):
        loaded = jax_export.deserialize(bytearray((exported / f"{task}.stablehlo").read_bytes()))
        assert set(loaded.platforms) == {"cpu", "cuda", "tpu"}
        for count in (1, 5):
            pixels = np.random.default_rng(count).normal(size=(count, 8, 8, 3)).astype(np.float32)
            found = loaded.call(pixels)
            np.testing.assert_allclose(found["logits"], model.logits(pixels, task), atol=1e-5)
            np.testing.assert_allclose(np.sum(found["probabilities"], axis=1), 1, rtol=1e-5)


def test_prompts_come_back(home, exported):
    model, again = jax_promptmtl.load(home / "work"), jax_promptmtl.load(exported)
    assert again.classes == model.classes and again.trained.keys() == model.trained.keys()
    assert all(np.array_equal(again.trained[path], model.trained[path]) for path in model.trained)
    modes = {(exported / name).stat().st_mode for name in ("prompts.safetensors", "config.json")}
    assert len(modes) == 1  # who may read the one may read the other
    images = sorted((home / "images" / "wax").rglob("*.png"))[:2]
    np.testing.assert_array_equal(again.predict(images, "wax").logits, model.predict(images, "wax").logits)


def test_the_readme_works_with_jax_alone(home, exported):
    code = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)[0]
    assert "jax_promptmtl" not in code
    picture = next((home / "images" / "ink" / "dog").glob("*.png"))
    shutil.copy(picture, exported / "picture.png")
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], cwd=exported, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == jax_promptmtl.load(home / "work").predict(picture, "ink").labels[0], done.stderr


def test_a_changed_file_is_found(home, exported, tmp_path):
    shutil.copytree(exported, tmp_path / "out")
    model = jax_promptmtl.load(home / "work")
    with pytest.raises(image_predictor.UserError, match="differs"):
        export.check_task(model, "oil", exported / "ink.stablehlo")
    path = tmp_path / "out" / image_predictor.PROMPTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(image_predictor.UserError, match="damaged"):
        image_predictor.load(tmp_path / "out")


def test_new_classes_can_be_exported(home, tmp_path):
    arguments = [str(home / "work"), f"--out={tmp_path / 'new'}", "--task=pen", "--classes=cat,bed"]
    assert command.run(door.start, [*arguments, "--platforms=cpu"]) == 0
    assert json.loads((tmp_path / "new" / "config.json").read_text())["about"]["class_names"]["pen"] == ["cat", "bed"]
    assert jax_promptmtl.load(tmp_path / "new").classes["pen"] == ("cat", "bed")


def test_mistakes_are_one_sentence(home, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    for arguments, words in (
        ([f"--out={tmp_path / 'full'}"], "something else"),
        ([f"--out={tmp_path / 'x'}", "--task=oli"], "'oil'"),
        ([f"--out={tmp_path / 'x'}", "--platforms=gpu"], "cuda"),
        ([], "--out"),
    ):
        assert command.run(door.start, [str(home / "work"), *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and words in line
    assert not (tmp_path / "x").exists() and len(CLASSES) == 3 and len(TASKS) == 4
