"""The grid of the video benchmark: its cells, and on random models that a killed grid is finished by a rerun."""

import pathlib
import runpy

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.experiments import sweep
from jax_promptmtl.experiments.video import job as video_job
from jax_promptmtl.experiments.video import prompting
from jax_promptmtl.experiments.video import rows as video_rows
from jax_promptmtl.experiments.video import sweep as videos
from jax_promptmtl.experiments.video.sweep import Videos
from jax_promptmtl.reporting import records, video_layout
from tests.tiny import save_models

CONFIG = pathlib.Path(__file__).parents[3] / "configs" / "benchmark.py"


def config_of(preset="video", **changes):
    config = runpy.run_path(str(CONFIG))["get_config"](preset)
    config.compilation_cache = False  # the tests have one of their own
    for part in config.presets.values():
        part.clips.train, part.clips.test, part.train.batch_size, part.train.epochs = 4, 4, 4, 2
        part.evaluation_batch_size = 4
    config.update(changes)
    return config.lock()


def plan(config):
    return sweep.plan(Videos(config, pathlib.Path()), config)


def identity(run):
    return Videos(None, pathlib.Path()).identity(run)


def about(run):
    return Videos(None, pathlib.Path()).about(run)


def test_the_grid_has_every_row_that_a_task_can_have():
    runs = plan(config_of())
    assert len(runs) == (6 * 12 - 3) * 3 and len({str(run) for run in runs}) == len(runs)
    assert {videos.task_of(run.setting) for run in runs if run.method == "hps"} == {
        "recognition",
        "spatial_action",
        "temporal_action",
    }
    assert {run.method for run in runs} == set(video_rows.ROWS)
    four = plan(config_of("video_four"))
    assert len(four) == (4 * 12 - 1) * 3 and {len(run.config.aux) for run in four} == {3}
    assert {run.config.seed for run in runs if run.seed == 2} == {2}
    with pytest.raises(UserError, match=r"'dml'.*'dlm'"):
        plan(config_of(rows=("dml",)))
    with pytest.raises(UserError, match="'tracking'"):
        plan(config_of(tasks=("tracking",)))
    with pytest.raises(UserError, match="'dml'"):
        plan(config_of(rates={"dml": (1e-3,)}))


def test_a_run_depends_on_the_models_that_it_uses_alone():
    runs = {str(run): run for run in plan(config_of(seeds=(0,)))}
    whose = {name.removesuffix(", seed 0"): set(videos.hashes(run)) for name, run in runs.items()}
    everything = set(videos.all_hashes(""))
    assert whose["dlm for recognition"] == everything == set(whose["own_data for video_object"])
    assert whose["full_ft for recognition"] == whose["self_aux for recognition"] == {"recognition"}
    assert whose["vpt for segmentation"] == {"segmentation", "recognition"}  # which makes its features
    assert whose["hps for recognition"] == {"recognition", "spatial_action", "temporal_action"}
    assert whose["mvlpt for video_object"] == {"video_object", "video_instance"}
    config = config_of(seeds=(0,))
    with config.unlocked():
        config.presets.recognition.rates.full_ft = 0.5
    same = {str(run): run for run in plan(config)}
    changed = {name for name, run in runs.items() if identity(run) != identity(same[name])}
    assert changed == {"full_ft for recognition, seed 0"}


def test_a_record_says_how_its_tables_are_laid_out():
    runs = {(videos.task_of(run.setting), run.method): run for run in plan(config_of(seeds=(0,)))}
    layout = about(runs["recognition", "dlm"])["layout"]
    assert layout["tasks"] == list(video_layout.TASKS) and layout["parts"] == list(video_layout.PARTS)
    assert layout["metric_titles"]["f1@50"] == "F1@50"
    for task in video_layout.TASKS:  # the records of before are read with what they would say today
        told = about(runs[task, "mvlpt"])
        assert video_layout.has_mapped_prompts(told) == video_layout.has_mapped_prompts({"task": task})


def test_a_search_for_rates_changes_the_rate_of_one_row_and_sees_no_test_drawing():
    runs = plan(config_of("video_rates"))
    assert len(runs) == 3 * (4 * 3) + 4 and {run.config.clips.evaluate_on for run in runs} == {"tune"}
    for run in runs:
        assert video_job.rate_of(run.config, run.method) == run.rate
        assert {video_job.rate_of(run.config, row) for row in ("self_aux", "own_data")} == {1e-3}


@pytest.mark.slow
def test_a_broken_off_grid_is_finished_by_a_rerun(tmp_path, monkeypatch, capsys):
    save_models(tmp_path / "models")
    monkeypatch.setattr(video_rows, "SHOTS", 1)
    rows = ("frozen", "dlm", "single_layer", "hps", "mvlpt", "full_ft")
    config = config_of(models=str(tmp_path / "models"), rows=rows, tasks=("recognition", "temporal_action"), seeds=(0,))
    measure, left = prompting.measure_row, [4]

    def die(job, name):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return measure(job, name)

    monkeypatch.setattr(prompting, "measure_row", die)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(Videos, config, tmp_path / "grid", dry_run=False)
    left[0] = 100
    sweep.run(Videos, config, tmp_path / "grid", dry_run=False)
    assert "12 runs, 4 done already" in capsys.readouterr().out and left[0] == 100 - 8
    found, ignored = records.read_all(tmp_path / "grid")
    assert not ignored and len(found) == 12 and {record["status"] for record in found} == {"done"}
    by = {(record["method"], record["task"]): record for record in found}
    assert len(by["dlm", "recognition"]["curve"]) == 2 and by["frozen", "recognition"]["curve"] == []
    last = by["dlm", "recognition"]["curve"][-1]["top1"]
    assert last == by["dlm", "recognition"]["scores"]["dynamic"]["test"]["top1"]
    assert len(list((tmp_path / "grid" / "shared").glob("*.safetensors"))) == 1  # trained once for two tasks
    assert by["hps", "recognition"]["trainable"] == by["hps", "temporal_action"]["trainable"]
    share = by["hps", "recognition"]["trainable"] / by["hps", "recognition"]["loaded"]
    assert 1 / 3 < share < 0.5
    assert by["full_ft", "recognition"]["trainable"] == by["full_ft", "recognition"]["primary"]
    widths = [by["mvlpt", task]["trainable"] for task in ("recognition", "temporal_action")]
    assert all(np.array(widths) > 30 * 64)
    monkeypatch.setattr(prompting, "measure_row", None)
    sweep.run(Videos, config, tmp_path / "grid", dry_run=False)  # nothing is left to do
