"""The video job on files: the same videos as files and in memory give the same numbers."""

import json
import runpy

import numpy as np
import pytest
from PIL import Image

import jax_promptmtl
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.icons import moving_icons
from jax_promptmtl.data.middle_cache import human
from jax_promptmtl.experiments.video import prompting
from jax_promptmtl.problems.video_tasks import icons
from jax_promptmtl.reporting import records
from tests.runs import ROOT
from tests.video_trees import dump

FULL = runpy.run_path(str(ROOT / "configs" / "dlm_full.py"))["get_config"]
ICONS = runpy.run_path(str(ROOT / "configs" / "dlm.py"))["get_config"]
COUNTS = {"train": 24, "test": 12}
ROWS = ("frozen", "dlm", "mid_prompt", "other_clip", "full_ft", "vpt")


def write_icons(root):
    """Write moving icons in the layout of Something-Something: lossless frames, one folder per video."""
    names = moving_icons.classes("recognition")
    dump(root / "something-something-v2-labels.json", {name: str(i) for i, name in enumerate(names)})
    for part, official, first in (("train", "train", 0), ("test", "validation", 1000)):
        seed = {"train": 1, "test": 0}[part]
        made = moving_icons.clips("recognition", range(COUNTS[part]), part=part, seed=seed)
        rows = [{"id": str(first + i), "template": names[label]} for i, label in enumerate(made["label"])]
        dump(root / f"something-something-v2-{official}.json", rows)
        for row, frames in zip(rows, made["frames"], strict=True):
            folder = root / "videos" / row["id"]
            folder.mkdir(parents=True)
            for number, frame in enumerate(frames, 1):
                Image.fromarray(frame).save(folder / f"img_{number:05d}.png")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_icons(tmp_path_factory.mktemp("icons"))


def small(config, root):
    """Return the config of small models on moving icons as files."""
    with config.unlocked():
        config.data.update({"root": str(root), "videos": "videos", "suffix": "", "strict": False})
        config.sampling.size, config.sampling.whole, config.sampling.flip = icons.SIDE, True, False
        config.model = dict(icons.VIT)
        config.primary.weights, config.primary.pixels = "package:recognition", "standardised per clip"
        section = config.aux.spatial_action
        section.weights, section.size, section.pixels = "package:spatial_action", 0, "standardised per clip"
        section.model = dict(icons.VIT)
        config.method.head_dim = 32
        config.rows, config.curves = ROWS, ()
    return config


def shorten(config):
    """Return a config with a few steps of training."""
    with config.unlocked():
        config.train.epochs, config.train.batch_size, config.evaluation_batch_size = 2, 8, 12
    return config


def scores(workdir):
    found = json.loads((workdir / "results.json").read_text())
    return {name: (row["trainable"], row["scores"]) for name, row in found.items()}


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory):
    config = shorten(ICONS("recognition"))
    with config.unlocked():
        config.aux, config.rows, config.curves = ("spatial_action",), ROWS, ()
        config.clips.train, config.clips.test = COUNTS["train"], COUNTS["test"]
        config.rates = {"full_ft": 1e-5, "vpt": 1e-2}
    workdir = tmp_path_factory.mktemp("memory")
    prompting.run(config, workdir, dry_run=False)
    return {
        name: (trainable, {kind: {"test": parts["test"]} for kind, parts in found.items()})
        for name, (trainable, found) in scores(workdir).items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("place", ["auto", "off"])
def test_the_same_videos_as_files_and_in_memory_score_the_same(root, in_memory, tmp_path, place):
    config = shorten(small(FULL("ssv2"), root))
    config.cache.place = place
    prompting.run(config, tmp_path, dry_run=False)
    assert scores(tmp_path) == in_memory
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    videos = [root / "videos" / str(1000 + i) for i in range(COUNTS["test"])]
    answered = records.unpack_numbers(json.loads((tmp_path / "results.json").read_text())["dlm"]["answers"])
    names = moving_icons.classes("recognition")
    assert jax_promptmtl.load(tmp_path).predict(videos).labels == [names[number] for number in answered]


@pytest.mark.slow
def test_middle_states_kept_and_computed_anew_train_the_same(root, tmp_path):
    for place in ("memory", "off"):
        config = shorten(small(FULL("ssv2"), root))
        config.cache.place, config.rows = place, ("dlm",)
        prompting.run(config, tmp_path / place, dry_run=False)
    lines = [
        [json.loads(line) for line in (tmp_path / place / "metrics.jsonl").read_text().splitlines()]
        for place in ("memory", "off")
    ]
    assert len(lines[0]) == len(lines[1]) > 0
    for one, two in zip(*lines, strict=True):
        assert one.keys() == two.keys()
        np.testing.assert_allclose([one["loss"]], [two["loss"]], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.primary.__setattr__("weights", ""), "--config.primary.weights"),
        (lambda c: c.primary.__setattr__("weights", "package:recognitoin"), "Did you mean 'recognition'"),
        (lambda c: c.aux.segmentation.__setattr__("weights", "package:segmentation"), "extractor.weights"),
        (lambda c: c.__setattr__("rows", ("mvlpt",)), "leave its row out"),
    ],
)
def test_what_cannot_be_is_one_sentence(root, tmp_path, change, message):
    config = shorten(small(FULL("ssv2"), root))
    with config.unlocked():
        change(config)
    with pytest.raises(UserError, match=message):
        prompting.run(config, tmp_path, dry_run=False)


def test_two_auxiliaries_of_one_task(root, tmp_path):
    config = shorten(small(FULL("ssv2"), root))
    with config.unlocked():
        config.aux.other.update(config.aux.spatial_action)
        config.aux.other.task = "spatial_action"
    job = prompting.open_job(config, tmp_path, tmp_path)
    assert set(job.footage.aux) == {"other", "spatial_action"}
    row = job.row(dict(config.method), {name: name for name in job.footage.aux})
    assert len(row.pipeline.aux) == 2 and row.pipeline.aux["other"].backbone.name == "spatial_action"


def test_a_dry_run_says_what_it_costs_before_there_are_weights(root, tmp_path, capsys):
    config = shorten(small(FULL("ssv2"), root))
    config.primary.weights, config.rows = "", ("frozen", "dlm")
    prompting.run(config, tmp_path, dry_run=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == ["primary", "spatial_action", "frozen primary", "DLM"]
    assert "128,432 trainable parameters, 8.61 % of all models" in lines[3]  # of 746,317 + 746,123
    tokens = 16 * 4 * 96 * 4 + 64  # a clip's middle tokens, and their mask
    assert human(2 * tokens * sum(COUNTS.values())) in lines[-1] and "kept in memory" in lines[-1]
    assert not (tmp_path / "results.json").exists()
