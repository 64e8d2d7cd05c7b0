"""The whole way from official files to a measured model, on miniatures: two steps of training, then the test part."""

import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import videos
from jax_promptmtl.data.videos.index import VideoSet
from jax_promptmtl.data.videos.sampling import Sampling
from jax_promptmtl.experiments import check_data
from jax_promptmtl.experiments.video import finetune, training
from jax_promptmtl.problems.video_tasks import SPECS
from tests import video_trees
from tests.small_videos import SMALL, STAGED

CONFIGS = pathlib.Path(__file__).parents[3] / "configs"
pytest.importorskip("av")


def preset(name):
    spec = importlib.util.spec_from_file_location("video_full", CONFIGS / "video_full.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(name)


def small(name, data, **changes):
    """Return a preset made small, for a miniature."""
    config = preset(name)
    with config.unlocked():
        if name in STAGED:
            frames = 1 if config.model.stage in ("single", "minvis") else 2
            tested = 4 if name.startswith("youtube_vis") else 0
            config.sampling.update({"frames": frames, "size": 24, "canvas": (32, 48), "tested": tested})
        else:
            config.sampling.update({"frames": 4, "size": 16, "stride": 2})
        epochs = 2 if name in ("50salads", "ava") else 1
        config.train.update({"batch_size": 1 if name in STAGED else 2, "epochs": epochs, "checkpoint_every": 100})
        config.update({"evaluation_batch_size": 2, "data": data | {"strict": False}} | SMALL[name] | changes)
    return config


SLOW = pytest.mark.slow
TRACKS = {"map", "ap50", "ap75", "ar1", "ar10"}
KEYS = {
    "imagenet_vid": {"ap50"},
    "youtube_vis": TRACKS,
    "ucf101": {"top1"},
    "own": {"top1"},
    "ava": {"map"},
    "50salads": {"accuracy", "edit", "f1@10", "f1@25", "f1@50"},
}
RUNS = ["ava", *(pytest.param(name, marks=SLOW) for name in ("ucf101", "own", "50salads", *STAGED))]


@pytest.mark.parametrize("name", RUNS)
def test_two_steps_and_a_test_from_official_files(name, tmp_path, capsys):
    config = small(name, video_trees.TREES[preset(name).data.name](tmp_path / "data"))
    config.every = 1  # two features per label were asked for, but the miniatures are short
    workdir = tmp_path / "run"
    workdir.mkdir()
    finetune.run(config, workdir, dry_run=False)
    found = json.loads((workdir / "results.json").read_text())
    steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) >= 2 and all(0 <= value <= 100 for value in found.values())
    assert found.keys() == KEYS[config.data.name]
    assert not check_data.check({"data": config.data}).problems
    card = json.loads((workdir / "models" / f"{config.data.name}.json").read_text())
    assert card["test"] == found and card["parameters"] > 1000
    assert card["classes"] == list(videos.read(config.data).class_names)
    said = capsys.readouterr().out
    assert f"{max(steps)} steps" in said
    assert all(f"note: {note}\n" in said for note in videos.build(config.data).notes)


@SLOW
def test_a_stage_keeps_what_the_one_before_has_learnt(tmp_path):
    tree, weights = video_trees.imagenet_vid(tmp_path / "data"), ""
    found = []
    for name in ("imagenet_vid_single", "imagenet_vid"):
        (tmp_path / name).mkdir()
        finetune.run(small(name, tree, weights=weights), tmp_path / name, dry_run=False)
        weights = str(tmp_path / name / "models" / "imagenet_vid.safetensors")
        found.append(load_file(weights))
    assert found[1].keys() - found[0].keys() == {key for key in found[1] if key.startswith("temporal/")}
    for key, leaf in found[0].items():
        np.testing.assert_array_equal(found[1][key], leaf, err_msg=key)


def test_features_of_another_frame_rate_are_trained_on_the_clock_of_the_config(tmp_path):
    config, video = small("thumos14", video_trees.thumos14(tmp_path)), "video_validation_0000051"
    file = tmp_path / "annotations/thumos14.json"
    video_trees.edit(file, lambda c: c["database"][video].update(fps=15))
    data = training.in_form(SPECS["temporal_action"], videos.build(config.data), config)
    (segment,) = [e.labels["segment"] for e in data.parts["train"] if e.name == video]
    np.testing.assert_allclose(segment, [[0.5, 2.0], [3.25, 4.5]])


def test_a_model_of_features_fits_its_data(tmp_path):
    config = small("thumos14", video_trees.thumos14(tmp_path / "data"))
    data = videos.build(config.data)
    parts = training.sources_of(data, config)
    params = finetune.tuning_problem(data, config, parts["train"])[0].params
    found = finetune.measure(data, config, parts["test"], params)
    assert "map" in found and all(0 <= value <= 100 for value in found.values() if value == value)


def test_a_data_set_decides_about_its_task(tmp_path):
    config = small("50salads", {"name": "50salads"}, every=2, points=7)
    data = VideoSet("x", "segmentation", pathlib.Path(), ("a", "b"), {}, {}, "", scored=(0,), background=(1,))
    rules = training.rules_of(data, config, "sizes")
    assert (rules.scored, rules.background, rules.every) == ((0,), (1,), 2)
    assert (rules.views, rules.soft, rules.points, rules.sizes) == (1, False, 7, "sizes")
    soft = training.rules_of(data, preset("ssv2"), None)
    assert soft.views == 6 and soft.soft


def test_recipes_have_what_upstream_has():
    ssv2, ava, thumos = preset("ssv2"), preset("ava"), preset("thumos14")
    assert (ssv2.train.optimizer.layer_decay, ava.train.optimizer.layer_decay) == (0.65, 0.75)
    assert dict(ssv2.mixing) == {"mixup": 0.8, "cutmix": 1.0, "chance": 1.0, "switch": 0.5, "smoothing": 0.1}
    assert (ssv2.sampling.operations, ssv2.sampling.magnitude, ssv2.sampling.erase, ssv2.repeats) == (4, 7, 0.25, 2)
    assert (ssv2.sampling.clips, ssv2.sampling.crops, ssv2.sampling.flip, ava.drop_path) == (2, 3, False, 0.2)
    views = {name: preset(name).sampling for name in ("ucf101", "hmdb51", "ucf101_tfds")}
    assert all((one.clips, one.crops) == (5, 3) for one in views.values()) and views["ucf101_tfds"].stride == 4
    for plain in (ava, thumos):
        assert not training.mixing_of(plain).on and plain.sampling.clips == plain.sampling.crops == 1
    assert ssv2.views == 60 and thumos.views == thumos.repeats == thumos.train.optimizer.layer_decay == 1


def test_recipes_of_stages_have_what_upstreams_have():
    single, several = preset("imagenet_vid_single"), preset("imagenet_vid")
    lengths = [(config.train.batch_size, config.train.epochs) for config in (single, several)]
    assert lengths == [(32, 8), (8, 7)]
    for config in (single, several):
        optimizer = config.train.optimizer
        assert (optimizer.learning_rate, optimizer.weight_decay, optimizer.clip) == (2e-4, 1e-4, 0.1)
        assert (config.sampling.size, tuple(config.sampling.canvas), config.sampling.flip) == (600, (600, 1000), True)
    assert tuple(several.train.optimizer.drops) == (4 / 7, 6 / 7) and several.sampling.frames == 15
    stages = {name: preset(f"youtube_vis{name}") for name in ("_minvis", "", "_offline", "_tfds")}
    assert [config.sampling.frames for config in stages.values()] == [1, 5, 21, 5]
    assert [config.sampling.backwards for config in stages.values()] == [False, False, True, False]
    assert [config.tune[0] for config in stages.values()][1:] == ["tracker/.*", "refiner/.*", "tracker/.*"]
    optimizer = stages[""].train.optimizer
    assert (optimizer.learning_rate, optimizer.weight_decay, optimizer.clip) == (1e-4, 0.05, 0.01)
    assert tuple(optimizer.drops) == (0.7,)
    assert stages[""].points == 12544 and stages[""].sampling.tested == 36 and stages[""].guided == 0.5


def test_training_varies_clips_and_labels_by_the_step_alone():
    data = VideoSet("x", "recognition", pathlib.Path(), ("a", "b", "c"), {}, {}, "")
    config = small("ucf101", {"name": "ucf101"}, drop_path=0.5)
    vary = finetune.varied(data, config)
    frames = np.random.default_rng(0).integers(0, 255, (2, 4, 16, 16, 3), np.uint8)
    batch = {"frames": frames, "label": np.array([0, 2]), "weight": np.full(2, 0.5)}
    one, again, other = (vary(batch, jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert (one["frames"] != other["frames"]).any() and (one["frames"] != frames).any()
    assert one["keep"].shape == (2, 2, 2) and not np.asarray(one["target"])[:, 1].max() > 0.04
    np.testing.assert_allclose(one["target"].sum(axis=1), 1, rtol=1e-6)
    config.mixing.update({"mixup": 0.0, "cutmix": 0.0, "smoothing": 0.0})
    config.drop_path = 0.0
    assert finetune.varied(data, config) is None
    boxes = VideoSet("y", "spatial_action", pathlib.Path(), ("a",), {}, {}, "")
    with pytest.raises(UserError, match="for recognition only, not for 'y'"):
        finetune.varied(boxes, preset("ssv2"))
    config.drop_path = 0.1
    with pytest.raises(UserError, match="has no drop path"):
        finetune.varied(VideoSet("z", "segmentation", pathlib.Path(), ("a",), {}, {}, "", channels=8), config)


def test_the_part_below_chooses_in_the_first_steps_only():
    batches = [{"weight": np.ones(2)}] * 4
    found = training.by_rules(SPECS["video_instance"], batches, 3, 5.0)
    assert [batch["guided"].tolist() for batch in found] == [[True] * 2] * 2 + [[False] * 2] * 2


@pytest.mark.parametrize("name", ["thumos14", "50salads"])
def test_weights_that_nothing_reads_are_refused(name, tmp_path):
    config = small(name, video_trees.TREES[preset(name).data.name](tmp_path / "data"), weights="nowhere.pth")
    data = videos.build(config.data)
    with pytest.raises(UserError, match=r"nowhere\.pth"):
        finetune.tuning_problem(data, config, training.sources_of(data, config)["train"])


def test_every_preset_names_options_that_its_reader_has():
    for name in (*video_trees.TREES, "ucf101_tfds", "youtube_vis_tfds"):
        config = preset(name)
        with pytest.raises(UserError, match="needs the option 'root'"):
            videos.read(config.data)
        assert Sampling(**config.sampling).frames == {"imagenet_vid": 15}.get(name, 5 if "youtube" in name else 16)
        options = dict(config.data) | {"root": "nowhere"}
        with pytest.raises(UserError, match="There is no data folder 'nowhere'"):
            videos.read(options)
