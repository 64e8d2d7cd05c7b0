"""Every kind of primary from official files to a measured table, each beside an auxiliary that comes from a file."""

import json
import runpy

import numpy as np
import pytest

import jax_promptmtl
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import videos
from jax_promptmtl.data.video_batches import all_batches
from jax_promptmtl.experiments.video import prompting, training
from jax_promptmtl.models.video.model_file import write_model
from jax_promptmtl.problems.video_tasks import SPECS, files
from tests import clips, video_trees
from tests.runs import ROOT
from tests.small_videos import SMALL, TINY
from tests.weights import draw, opengvlab

pytest.importorskip("av")
FULL = runpy.run_path(str(ROOT / "configs" / "dlm_full.py"))["get_config"]
SIDE, FRAMES = 16, 4  # of auxiliaries
MODELS = {
    "recognition": TINY,
    "spatial_action": TINY,
    "temporal_action": SMALL["thumos14"]["model"],
    "segmentation": SMALL["50salads"]["model"],
    "video_object": {"stage": "multi", **SMALL["imagenet_vid"]["model"]},
    "video_instance": {"stage": "online", **SMALL["youtube_vis"]["model"]},
}
ROWS = ("frozen", "dlm", "mid_prompt")
CASES = {  # preset: auxiliary, how its file came to be
    "own": ("segmentation", "ours"),
    "ssv2": ("temporal_action", "ours"),
    "ava": ("recognition", "published"),
    "thumos14": ("spatial_action", "ours"),
    "50salads": ("recognition", "published"),
    "imagenet_vid": ("video_instance", "ours"),
    "youtube_vis": ("video_object", "ours"),
}


def small(preset, root, **changes):
    """Return a preset made small on the miniature of its data set, without weights."""
    config = FULL(preset)
    tree = video_trees.TREES[preset](root)
    name = config.task
    with config.unlocked():
        config.data.update(tree | {"strict": False})
        config.model = MODELS[name]
        config.sampling.update({"frames": 4, "size": 16, "stride": 2, "operations": 0, "erase": 0.0})
        if name in ("video_object", "video_instance"):
            config.sampling.update({"frames": 2, "size": 24, "canvas": (32, 48)})
            config.sampling.tested = 4 if name == "video_instance" else 0
            config.points = 16
        config.every, config.multiple, config.cut = 1, 16, int(name == "temporal_action")
        config.feature.most = 32
        for section in config.aux.values():
            section.model, section.extractor.model = MODELS[section.task], TINY
            section.update({"frames": FRAMES, "size": SIDE})
            section.extractor.update({"frames": FRAMES, "size": SIDE})
            if section.task in ("video_object", "video_instance"):
                section.update({"frames": 2, "size": 32})
        config.method.update({"num_prompts": 2, "bottleneck": 4, "adapter_rank": 2, "head_dim": 8})
        config.train.update({"batch_size": 2, "epochs": 2, "checkpoint_every": 100})
        config.rows, config.curves, config.evaluation_batch_size = ROWS, (), 2
        config.update(changes)
    return config


def drawn(spec, sizes, seed):
    """Draw the weights of a task's model."""
    return draw(spec.module(sizes), *spec.example(sizes), seed=seed)


def write_primary(config, folder):
    """Write a model of the config's data, as video_full.py would leave it."""
    data = videos.build(config.data)
    spec = SPECS[data.task]
    data = training.in_form(spec, data, config)
    parts = training.sources_of(data, config)
    sizes = files.sizes_of(spec, len(data.class_names), config, next(all_batches(parts["train"], batch_size=1)))
    card = {"kind": data.task, "classes": data.class_names, "config": config.to_dict()}
    return str(write_model(folder, "primary", drawn(spec, sizes, 0), card))


def write_auxiliary(config, name, kind, folder):
    """Write a model of a task, and of its extractor where it has one; set the config to them."""
    section, spec = config.aux[name], SPECS[config.aux[name].task]
    shape = {"sampling": {"frames": FRAMES, "size": SIDE}}
    if spec.extractor:
        section.extractor.weights = published(folder / "extractor.pth")
        form = files.InputForm(0, (0, 0), features=files.Features(2, TINY["width"]))
    else:
        form = files.InputForm(FRAMES, (SIDE, SIDE))
    if kind == "published":
        section.weights = published(folder / "aux.pth")
        return
    card = {"classes": ["a", "b", "c"], "config": {"model": section.model.to_dict(), **shape}}
    params = drawn(spec, spec.sizes(section.model, 3, form), 1)
    section.weights = str(write_model(folder, f"aux_{name}", params, card))


def published(path):
    """Write a small VideoMAE as OpenGVLab does."""
    torch = pytest.importorskip("torch")
    spec = SPECS["recognition"]
    params = drawn(spec, spec.sizes(TINY, 5, files.InputForm(FRAMES, (SIDE, SIDE))), 2)
    state = opengvlab(params)
    torch.save({"module": {key: torch.tensor(leaf) for key, leaf in state.items()}}, path)
    return str(path)


def with_videos(config, folder):
    """Write a video for every file of features, and set the config to them."""
    root = folder / "videos"
    data = videos.build(config.data)
    for example in {example.name: example for part in data.parts.values() for example in part}.values():
        clips.write(root / f"{example.name}.mp4", 12)
    config.frames.update({"root": str(root), "count": FRAMES, "size": SIDE})


def ready(preset, folder, **changes):
    """Return a small config with all files written."""
    config = small(preset, folder / "data", **changes)
    longer_tests(preset, folder / "data")
    name, kind = CASES[preset]
    with config.unlocked():
        config.primary.weights = write_primary(config, folder / "models")
        write_auxiliary(config, name, kind, folder / "models")
        if "channels" in config.data:
            with_videos(config, folder)
    return config


def longer_tests(preset, root):
    """Make the videos that test longer than those that train, where a preset's are of one length."""
    if preset == "thumos14":
        video_trees.features(root / "i3d_features/video_test_0000004.npy", (140, video_trees.CHANNELS))


@pytest.mark.slow
@pytest.mark.parametrize("preset", CASES)
def test_two_steps_and_a_table(preset, tmp_path):
    config = ready(preset, tmp_path)
    workdir = tmp_path / "run"
    workdir.mkdir()
    prompting.run(config, workdir, dry_run=False)
    found = json.loads((workdir / "results.json").read_text())
    assert tuple(found) == ROWS
    for row in found.values():
        values = [value for scores in row["scores"].values() for value in scores["test"].values()]
        assert values and all(0 <= value <= 100 for value in values if not np.isnan(value))
    assert found["frozen"]["trainable"] == 0 < found["dlm"]["trainable"] and found["dlm"]["steps"] >= 2
    assert set(found["dlm"]["scores"]) == {"dynamic", "static"}
    assert (workdir / "prompts_dlm.safetensors").exists() and (workdir / "report.html").exists()


@pytest.mark.slow
def test_what_was_learnt_of_one_s_own_videos_predicts_and_carries_over(tmp_path, capsys):
    config = ready("own", tmp_path, rows=("dlm",))
    home = tmp_path / "run"
    home.mkdir()
    prompting.run(config, home, dry_run=False)
    (home / "config.json").write_text(json.dumps(config.to_dict()))
    found = json.loads((home / "results.json").read_text())["dlm"]["scores"]
    data = videos.build(config.data)
    tests = data.parts["test"]
    paths = [data.path(example.video) for example in tests]
    truth = [data.class_names[int(example.labels["label"])] for example in tests]
    for place, kind in ((home, "dynamic"), (home / "prompts_dlm.safetensors", "static")):
        right = np.mean(np.array(jax_promptmtl.load(place).predict(paths).labels) == truth)
        np.testing.assert_allclose(100 * right, found[kind]["test"]["top1"])

    with config.unlocked():
        config.prompts = str(home)
    other = tmp_path / "other"
    other.mkdir()
    capsys.readouterr()
    prompting.run(config, other, dry_run=False)  # the same data, so that the scores are known
    rows = json.loads((other / "results.json").read_text())
    assert rows["transferred"]["scores"] == found and set(rows) == {"original", "transferred"}
    assert "original" in capsys.readouterr().out
    with config.unlocked():
        config.aux.segmentation.weights = ""
    prompting.run(config, other, dry_run=False)
    rows = json.loads((other / "results.json").read_text())
    assert rows["transferred"]["scores"] == {"static": found["static"]}
    (tmp_path / "models" / "aux_segmentation.safetensors").unlink()
    assert len(jax_promptmtl.load(home / "prompts_dlm.safetensors").predict(paths[0]).labels) == 1
    with pytest.raises(UserError, match="aux_segmentation"):
        jax_promptmtl.load(home)
