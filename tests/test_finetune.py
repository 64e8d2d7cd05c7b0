"""The whole way from official files to a measured model, on miniatures: two steps of training, then the test part."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest

from jax_promptmtl import finetune
from jax_promptmtl.data import videos
from jax_promptmtl.data.videos.clips import Sampling
from jax_promptmtl.data.videos.index import VideoSet
from jax_promptmtl.errors import UserError
from tests import video_trees

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
pytest.importorskip("av")
TINY = {"width": 16, "layers": 2, "heads": 2, "inner": 32, "patch": 8}
SMALL = {
    "ucf101": {"model": TINY},
    "ava": {"model": TINY},
    "50salads": {"model": {"width": 16, "layers": 3, "decoders": 1}, "multiple": 16},
    "thumos14": {
        "model": {"width": 16, "heads": 2, "window": 5, "stem": 1, "branch": 2, "embeddings": 1},
        "multiple": 16,
        "train": {"batch_size": 1},
    },
}


def preset(name):
    spec = importlib.util.spec_from_file_location("video_full", CONFIGS / "video_full.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(name)


def small(name, data, **changes):
    """Return a preset made small, for a miniature."""
    config = preset(name)
    with config.unlocked():
        config.sampling.update({"frames": 4, "size": 16, "stride": 2})
        config.train.update({"batch_size": 2, "epochs": 2 if name == "50salads" else 1, "checkpoint_every": 100})
        config.update({"evaluation_batch_size": 2, "data": data | {"strict": False}} | SMALL[name] | changes)
    return config


@pytest.mark.parametrize("name", ["ucf101", "50salads"])
def test_two_steps_and_a_test_from_official_files(name, tmp_path, capsys):
    config = small(name, video_trees.TREES[name](tmp_path / "data"))
    config.every = 1  # two features per label were asked for, but the miniatures are short
    workdir = tmp_path / "run"
    workdir.mkdir()
    finetune.run(config, workdir, dry_run=False)
    found = json.loads((workdir / "results.json").read_text())
    steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 2 and all(0 <= value <= 100 for value in found.values())
    assert found.keys() == ({"top1"} if name == "ucf101" else {"accuracy", "edit", "f1@10", "f1@25", "f1@50"})
    card = json.loads((workdir / "models" / f"{name}.json").read_text())
    assert card["test"] == found and card["parameters"] > 1000
    assert card["classes"] == list(videos.read(config.data).class_names)
    assert "2 steps" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ava", "thumos14"])
def test_models_fit_their_data(name, tmp_path):
    config = small(name, video_trees.TREES[name](tmp_path / "data"))
    data = videos.build(config.data)
    parts = finetune.parts_of(data, config)
    params = finetune.problem_of(data, config, parts["train"]).params
    found = finetune.measure(data, config, parts["test"], params)
    assert "map" in found and all(0 <= value <= 100 for value in found.values() if value == value)


def test_only_scored_classes_and_no_background_count():
    data = VideoSet("x", "spatial_action", pathlib.Path(), ("a", "b"), {}, {}, "", scored=(0,))
    box = {"box": np.array([[[0, 0, 1, 1.0]]]), "valid": np.array([[True]])}
    found = {"score": np.array([[[0.9, 0.8]]]), **box}
    wrong = {"label": np.array([[[True, False]]]), **box}
    both = {"label": np.array([[[True, True]]]), **box}
    assert finetune.task_of(data, 1).measure(found, wrong) == finetune.task_of(data, 1).measure(found, both)
    data = VideoSet("y", "segmentation", pathlib.Path(), ("a", "b"), {}, {}, "", background=(1,))
    found, true = {"label": np.array([[0, 0, 0, 0]])}, {"full": np.array([[0, 0, 0, 0, 0, 0, 1, 1]])}
    assert finetune.task_of(data, 2).measure(found, true)["edit"] == 100.0


def test_weights_of_the_trunk_are_taken_over(tmp_path, monkeypatch):
    config = small("ucf101", {"name": "ucf101"}, weights="somewhere")
    sizes = finetune.trunk_config(7, config)
    given = finetune.vision(7, small("ucf101", {"name": "ucf101"}, seed=5))[1]
    monkeypatch.setattr(finetune.convert_videomae, "load", lambda path, heads: (sizes, given, "sha"))
    _, params = finetune.vision(2, config)
    assert params["trunk"] is given["trunk"] and params["pool"]["head"]["kernel"].shape == (16, 2)
    config.model.layers = 3
    with pytest.raises(UserError, match=r"set config\.model to them"):
        finetune.vision(2, config)


def test_every_preset_names_options_that_its_reader_has():
    for name in video_trees.TREES:
        config = preset(name)
        with pytest.raises(UserError, match="needs the option 'root'"):
            videos.read(config.data)
        assert Sampling(**config.sampling).frames == 16
        options = dict(config.data) | {"root": "nowhere"}
        with pytest.raises(UserError, match="There is no data folder 'nowhere'"):
            videos.read(options)


def test_sets_without_a_model_here_say_so(tmp_path):
    config = preset("youtube_vis")
    config.data.update(video_trees.youtube_vis(tmp_path) | {"strict": False})
    with pytest.raises(UserError, match=r"Unknown task with a model here .*'video_instance'"):
        finetune.run(config, tmp_path, dry_run=True)
