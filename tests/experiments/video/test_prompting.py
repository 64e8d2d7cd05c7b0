"""The video jobs end to end on a few clips: train a small model, then prompt it; what is written and printed."""

import dataclasses
import importlib.util
import json
import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import prompt_file
from jax_promptmtl.data.video_batches import all_batches
from jax_promptmtl.experiments.video import job as video_job
from jax_promptmtl.experiments.video import pretrain, prompting
from jax_promptmtl.experiments.video import rows as video_rows
from jax_promptmtl.problems.video_tasks import icons
from jax_promptmtl.problems.video_tasks.spec import Sight
from jax_promptmtl.reporting import records
from tests.tiny import FAST, save_models

CONFIGS = pathlib.Path(__file__).parents[3] / "configs"


def config_of(name, preset, **changes):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(preset)
    config.clips.train, config.clips.test = 16, 8
    config.train.batch_size = 8
    config.train.epochs = 1
    with config.unlocked():
        config.update(changes)
    return config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": ("dml",)}, "Unknown row 'dml'.*Did you mean 'dlm'"),
        ({"aux": ("recognition",)}, "Unknown auxiliary task 'recognition'"),
        ({"task": "tracking"}, "Unknown primary task 'tracking'"),
        ({"models": "nowhere"}, "Cannot read the model 'nowhere/"),
    ],
)
def test_bad_configs_are_one_sentence(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        prompting.run(config_of("dlm", "recognition", **changes), tmp_path, dry_run=False)


def test_prompts_of_a_temporal_primary_reach_the_level_of_most_answers(tmp_path):
    clips = {"frames": np.random.default_rng(0).integers(0, 256, (1, 64, 32, 32, 3)).astype(np.uint8)}

    def change(**options):
        job = prompting.open_job(config_of("dlm", "temporal_action", **options), tmp_path, tmp_path)
        view = video_rows.frozen(dataclasses.replace(job, parts=())).pipeline.primary
        model = view.backbone

        @partial(jax.jit, compiler_options=FAST)
        def logits(clips):
            state = model.lower(model.params, view.adapt(clips))
            return [model.upper(model.params, state, made).logits for made in (None, jnp.ones((1, 4, model.dim)))]

        plain, prompted = logits(clips)
        return np.abs(prompted - plain)[0].max(axis=-1)

    finest, half = change()[:16], change(cut=0)
    assert (finest > 0).all()
    assert (half[:16] == 0).all() and (half[16:] > 0).all()  # the cut of other tasks would come too late
    with pytest.raises(UserError, match="middle 99"):
        change(cut=99)


@pytest.mark.slow
def test_models_are_trained_and_then_prompted(tmp_path, capsys):
    models = str(tmp_path / "models")
    for task in ("recognition", "segmentation"):
        pretrain.run(config_of("video", task, models=models), tmp_path, dry_run=False)
    assert json.loads((tmp_path / "models" / "segmentation.json").read_text())["test"].keys() >= {"f1@50", "edit"}
    prompting.run(config_of("dlm", "recognition", aux=("segmentation",), models=models), tmp_path, dry_run=True)
    assert "DLM: " in capsys.readouterr().out and not (tmp_path / "results.json").exists()
    rows = ("frozen", "dlm", "vpt", "full_ft", "adapter", "other_clip", "own_data", "self_aux")
    runs = (("recognition", "segmentation", 0, rows), ("segmentation", "recognition", 1, ("frozen", "dlm", "adapter")))
    for task, other, cut, rows in runs:
        workdir = tmp_path / task
        workdir.mkdir()
        config = config_of("dlm", task, aux=(other,), models=models, rows=rows, cut=cut)
        prompting.run(config, workdir, dry_run=False)
        results = json.loads((workdir / "results.json").read_text())
        assert results.keys() == set(rows) and results["frozen"]["trainable"] == 0
        for row in rows:
            kinds = results[row]["scores"]
            assert kinds.keys() == ({"dynamic", "static"} if row in video_rows.MAPPED else {"dynamic"})
            assert all(
                0 <= value <= 100 for parts in kinds.values() for found in parts.values() for value in found.values()
            )
        page = (workdir / "report.md").read_text()
        assert "cannot be shown" not in page and (workdir / "report.html").exists()
        if task == "recognition":  # the answers are those that were measured
            label = icons.videos(task, config.clips.test, "test", seed=config.clips.test_seed).arrays["label"]
            for row in rows:
                right = records.unpack_numbers(results[row]["answers"]) == label
                assert 100 * right.mean() == results[row]["scores"]["dynamic"]["test"]["top1"]
        assert abs(results["adapter"]["trainable"] / results["dlm"]["trainable"] - 1) < 0.01
        assert "DLM" in capsys.readouterr().out
        backbone = icons.view(task, icons.load(models, (task,)), 16, Sight(middle=cut or None)).backbone
        prompts, card = prompt_file.load(workdir / "prompts_dlm", middle=backbone.middle, dim=backbone.dim, task=task)
        assert prompts.shape == (10, backbone.dim) and np.isfinite(prompts).all() and list(card.aux) == [other]


@pytest.mark.slow
def test_instances_start_from_the_detectors_resnet_and_their_tracker_is_trained_last(tmp_path):
    models = tmp_path / "models"
    save_models(models)
    config = config_of("video", "video_instance", models=str(models))
    config.clips.train, config.clips.test, config.train.batch_size, config.train.tracker_epochs = 4, 2, 2, 1
    pretrain.run(config, tmp_path, dry_run=False)
    found = icons.load(models, ("video_object", "video_instance"))
    resnet, own = found["video_object"]["detector"]["resnet"], found["video_instance"]["backbone"]
    for kept in ("stem", "block_0_0", "block_1_0"):
        jax.tree.map(np.testing.assert_array_equal, own[kept], resnet[kept])
    assert np.abs(own["block_2_0"]["conv_2"]["kernel"] - resnet["block_2_0"]["conv_2"]["kernel"]).max() > 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines if line["step"] == 2] == ["segmenter", "tracker"]
    card = json.loads((models / "video_instance.json").read_text())
    assert card["training"]["steps"] == 4 and card["test"].keys() == {"map", "ar1", "ar10", "ap50", "ap75"}


@pytest.mark.slow
def test_the_mapper_can_start_as_a_copy_and_its_prompts_can_leave_early(tmp_path):
    save_models(tmp_path / "models")
    changes = {"models": str(tmp_path / "models"), "init_from_aux_layer": True, "drop_after": 1}
    job = prompting.open_job(config_of("dlm", "recognition", **changes), tmp_path, tmp_path)
    row = video_rows.mapper(job)
    problem = video_job.row_problem(job, row)
    blocks = job.weights["spatial_action"]["trunk"]["transformer"]
    jax.tree.map(np.testing.assert_array_equal, problem.params["method"]["spatial_action"]["layer"], blocks["blocks_3"])
    batch = next(all_batches(row.sources["test"], batch_size=4))
    kept = prompting.open_job(config_of("dlm", "recognition", models=changes["models"]), tmp_path, tmp_path)
    whole, early = (
        row.pipeline.outputs(problem.params, problem.frozen, batch)[0] for row in (row, video_rows.mapper(kept))
    )
    assert np.isfinite(whole).all() and np.abs(whole - early).max() > 1e-4
    config = config_of("dlm", "recognition", aux=("segmentation",), **changes)
    with pytest.raises(UserError, match="init_from_aux_layer copies a transformer's layer, and none of segmentation"):
        video_rows.mapper(prompting.open_job(config, tmp_path, tmp_path))
