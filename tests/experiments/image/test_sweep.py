"""The benchmark on a tiny CLIP and a folder of tiny images: what it records, repeats, shares and survives."""

import itertools
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import time

import jax
import pytest

from jax_promptmtl.core.command import EXIT_USER
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.experiments import grid, sweep
from jax_promptmtl.experiments.image import sweep as images
from jax_promptmtl.experiments.image import tune
from jax_promptmtl.experiments.image.sweep import Images
from jax_promptmtl.reporting import records
from jax_promptmtl.reporting.benchmark import console_tables
from tests.tiny import CLASSES, TASKS, save_clip, save_images

ROOT = pathlib.Path(__file__).parents[3]
METHODS = ("zero_shot", "coop", "full_ft_single", "mmap", "mmap_random")
CONFIG = """
import runpy

def get_config():
    config = runpy.run_path({benchmark!r})["get_config"]()
    config.methods, config.seeds, config.shots = {methods!r}, (0,), (2,)
    config.suites = {{"tiny": {{"name": "folder", "root": {root!r} + "/images"}}}}
    config.backbone = {root!r} + "/clip"
    config.compilation_cache = False  # the tests have one of their own
    config.presets = {{name: config.presets[name] for name in config.methods}}
    for part in config.presets.values():
        part.evaluation_batch_size, part.train.optimizer.learning_rate = 16, 1e-2
        for section in (part, part.grouping):
            section.train.epochs, section.train.batch_size, section.train.log_every = 2, 8, 1
            if section.method.name == "mmap":
                section.method.length, section.method.rows, section.method.columns = 2, 1, 16
        part.grouping.warmup_epochs = 0.0
        if part.method.name == "tokens":
            part.method.length, part.method.depth = {{"text": 2}}, {{"text": 1}}
    return config
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a folder with weights, images and the config of a tiny grid."""
    folder = tmp_path_factory.mktemp("files")
    save_clip(folder / "clip")
    save_images(folder / "images")
    config = {"benchmark": str(ROOT / "configs" / "benchmark.py"), "methods": METHODS, "root": str(folder)}
    (folder / "tiny.py").write_text(CONFIG.format(**config))
    return folder


@pytest.fixture
def config(files):
    return runpy.run_path(str(files / "tiny.py"))["get_config"]().lock()


@pytest.fixture(scope="module")
def finished(files, tmp_path_factory):
    """Return the folder of a grid that was run to its end."""
    folder = tmp_path_factory.mktemp("finished")
    run(runpy.run_path(str(files / "tiny.py"))["get_config"]().lock(), folder)
    return folder


def run(config, folder, *, dry_run=False):
    sweep.run(Images, config, folder, dry_run=dry_run)


def plan(config):
    return sweep.plan(Images(config, pathlib.Path()), config)


def cell(config, method):
    """Return the config of a method's run."""
    return next(run.config for run in plan(config) if run.method == method)


def read(folder):
    """Return the records by method."""
    found, ignored = records.read_all(folder)
    assert not ignored
    return {record["method"]: record for record in found}


def test_every_run_leaves_a_record_and_nothing_else(finished):
    found = read(finished)
    assert len({record["right"] for record in found.values()}) > 3  # methods answer differently: equal is no accident
    assert set(found) == set(METHODS) and all(record["status"] == "done" for record in found.values())
    assert {path.name for path in finished.iterdir()} == {"records", "claims", "groupings", "work"}
    assert not list((finished / "work").iterdir()) and not list((finished / "claims").glob("*.claim"))
    assert len(list((finished / "groupings").iterdir())) == 1  # learned once for two methods


def test_a_record_says_what_was_run_and_what_came_out(finished):
    record = read(finished)["mmap"]
    assert record["tasks"] == list(TASKS) and record["count"] == [2 * len(CLASSES)] * len(TASKS)
    assert [int(row.sum()) for row in records.right(record)] == record["correct"]
    assert record["config"]["seed"] == 0 and record["config"]["suite"]["shots"] == 2
    assert record["steps"] == 2 * 3 and record["step_seconds"] == pytest.approx(8 / record["images_per_second"])
    assert set(record["seconds"]) == {"training", "evaluation"} and record["wall_seconds"] > 0
    assert record["peak_memory"] > 2**20 and not record["resumed"] and len(record["backbone"]["sha256"]) == 64
    assert record["versions"]["jax"] and record["grouping"]["groups"] == record["groups"]
    assert set(record["git"] or {"commit", "dirty"}) == {"commit", "dirty"}


def test_groups_are_shared_or_drawn(finished):
    found = read(finished)
    learned = {frozenset(group) for group in found["mmap"]["groups"]}
    drawn = {frozenset(group) for group in found["mmap_random"]["groups"]}
    assert learned != drawn
    assert sorted(map(len, learned)) == sorted(map(len, drawn)) and found["mmap_random"]["grouping"] is None
    assert found["coop"]["groups"] == [list(TASKS)]


def test_a_run_equals_the_job_of_its_own(files, config, finished, tmp_path):
    part = cell(config, "mmap")
    tune.run(part, tmp_path, dry_run=False)
    alone, record = json.loads((tmp_path / "results.json").read_text()), read(finished)["mmap"]
    assert alone["correct"]["MmAP"] == record["correct"]
    assert (alone["trainable"], alone["total"]) == (record["trainable"], record["total"])
    assert json.loads((tmp_path / "grouping.json").read_text())["matrices"] == record["grouping"]["matrices"]


def test_separate_runs_are_those_of_each_task_alone(config, finished, tmp_path):
    part, record = cell(config, "full_ft_single"), read(finished)["full_ft_single"]
    whole, correct = images.prepare(part, tmp_path), []
    for job in images.split_job(whole):
        assert len(job.tasks) == 1
        outcome = tune.measure(job, ((0,),))
        correct += outcome.counts["correct"].tolist()
    assert record["correct"] == correct
    assert record["trainable"] == record["total"] == len(TASKS) * outcome.total
    assert record["steps"] == len(TASKS) * outcome.steps


def test_a_rerun_does_nothing(config, finished, capsys, monkeypatch):
    monkeypatch.setattr(tune, "measure", None)
    before = {path: path.stat().st_mtime_ns for path in (finished / "records").iterdir()}
    run(config, finished)
    assert {path: path.stat().st_mtime_ns for path in (finished / "records").iterdir()} == before
    printed = capsys.readouterr().out
    assert "5 done already" in printed and "tiny, 2 shots per class" in printed and "MmAP, random groups" in printed


def test_a_foreign_record_is_replaced_loudly(config, tmp_path, capsys):
    config.methods = ("zero_shot",)
    run(config, tmp_path)
    (path,) = (tmp_path / "records").iterdir()
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    run(config, tmp_path)
    assert path.name in capsys.readouterr().err
    assert read(tmp_path)["zero_shot"]["correct"] == json.loads(whole)["correct"]


def test_what_changes_a_result_changes_the_id(config, files, tmp_path):
    def ids(**changes):
        part = config.copy_and_resolve_references().unlock()
        part.methods = ("coop",)
        part.update_from_flattened_dict(changes)
        made = sweep.make_grid(Images, part, tmp_path)
        return [made.id(run) for run in made.runs]

    same = ids()
    assert ids(**{"presets.coop.workers": 1, "presets.coop.title": "x", "presets.coop.train.log_every": 9}) == same
    assert ids(**{"presets.coop.train.epochs": 3}) != same and ids(**{"seeds": (1,)}) != same
    save_clip(tmp_path / "clip", seed=9)
    assert ids(**{"backbone": str(tmp_path / "clip")}) != same
    assert len(set(ids(**{"seeds": (0, 1), "rates": {"coop": (0.1, 0.2)}}))) == 4


def test_one_failure_does_not_end_the_grid(config, tmp_path, capsys):
    config.methods = ("coop", "zero_shot")
    config.presets.coop.train.optimizer.learning_rate = 1e30
    with pytest.raises(UserError, match=r"1 of 2 runs failed.*coop"):
        run(config, tmp_path)
    found = read(tmp_path)
    assert found["zero_shot"]["status"] == "done" and found["coop"]["status"] == "failed"
    assert "\n" not in found["coop"]["error"] and "correct" not in found["coop"]
    assert "coop" not in console_tables(list(found.values())).lower()
    written = (
        found["coop"]["written"],
        (path := tmp_path / "records" / f"{found['coop']['id']}.json").stat().st_mtime_ns,
    )
    config.retry = False
    with pytest.raises(UserError, match="failed"):
        run(config, tmp_path)
    assert path.stat().st_mtime_ns == written[1]
    config.retry = True
    with pytest.raises(UserError, match="failed"):
        run(config, tmp_path)
    assert path.stat().st_mtime_ns > written[1]


def test_a_search_for_rates_tries_them_all(config, tmp_path, capsys):
    config.methods = ("coop",)
    config.rates.unlock().coop = (1e-3, 1e-1)
    run(config, tmp_path)
    found, _ = records.read_all(tmp_path)
    assert {record["rate"]: record["config"]["train"]["optimizer"]["learning_rate"] for record in found} == {
        1e-3: 1e-3,
        1e-1: 1e-1,
    }
    printed = capsys.readouterr().out
    assert "tiny, learning rates" in printed and "0.001: " in printed and "0.1: " in printed


@pytest.mark.parametrize(
    "change, words",
    [({"methods": ("coopp",)}, ["coopp", "coop"]), ({"seeds": ()}, ["empty"]), ({"backbone": "none"}, ["none"])],
    ids=["method", "empty", "weights"],
)
def test_a_wrong_grid_is_one_sentence(change, words, config, tmp_path):
    config.update(change)
    with pytest.raises(UserError) as caught:
        run(config, tmp_path)
    assert all(word in str(caught.value) for word in words) and not (tmp_path / "records").exists()


def test_a_dry_run_counts_and_writes_nothing(config, finished, tmp_path, capsys):
    run(config, tmp_path / "none", dry_run=True)
    printed = capsys.readouterr().out
    assert "coop: 128 trained parameters" in printed and "5 runs, 0 done, 5 to do" in printed
    assert not (tmp_path / "none").exists()
    run(config, finished, dry_run=True)
    assert "5 runs, 5 done, 0 to do" in capsys.readouterr().out


def test_the_presets_of_the_benchmark_make_a_grid():
    get_config = runpy.run_path(str(ROOT / "configs" / "benchmark.py"))["get_config"]
    sizes = {name: len(plan(get_config(name).lock())) for name in ("icons", "smoke", "rates", "shots")}
    assert sizes == {"icons": 18 * 3, "smoke": 6, "rates": 9 * 3, "shots": 5 * 4 * 3}
    assert all(run.config.suite.evaluate_on == "tune" for run in plan(get_config("rates").lock()))
    office = [run for run in plan(get_config("office_home").lock()) if run.method == "mmap"]
    assert {(run.setting.axes["shots"], run.config.train.batch_size) for run in office} == {(6, 16), (12, 16)}


def command(files, workdir, *options):
    module = [sys.executable, "-m", "jax_promptmtl.benchmark", f"--config={files / 'tiny.py'}", f"--workdir={workdir}"]
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}  # and as many virtual devices as here
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return subprocess.Popen(
        [*module, *options], cwd=ROOT, env=env | cache, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def results(folder):
    """Return what is not allowed to depend on how often a grid was broken off: answers to all images, and groups."""
    keys = ("right", "correct", "trainable", "steps", "groups", "split_hash", "id")
    return {method: [record[key] for key in keys] for method, record in read(folder).items()}


@pytest.mark.slow
@pytest.mark.multiproc
@pytest.mark.parametrize("after", [1, 3], ids=["in training", "in grouping"])
def test_a_killed_grid_ends_with_the_same_table(after, files, finished, tmp_path):
    process = command(files, tmp_path)
    for line in process.stdout:
        if line.startswith(f"[{after}/"):
            break
    wait_for(lambda: any(tmp_path.glob("work/*/checkpoints")) or process.poll() is not None)  # in the midst of a run
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = len(list((tmp_path / "records").glob("*.json")))
    assert after <= done < len(METHODS) and list((tmp_path / "claims").glob("*.claim"))
    again = command(files, tmp_path)
    printed, errors = again.communicate()
    assert again.returncode == 0, errors
    assert f"{done} done already" in printed
    assert results(tmp_path) == results(finished)
    table = printed.split("\n\n", 1)[1]
    assert table.strip() == console_tables(records.read_all(finished)[0]).strip()


@pytest.mark.slow
@pytest.mark.multiproc
def test_two_processes_share_a_grid_without_double_work(files, finished, tmp_path):
    processes = [command(files, tmp_path) for _ in range(2)]
    printed = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    lines = list(itertools.chain(*(out.splitlines() for out, _ in printed)))
    mine = [line for line in lines if line.startswith("[") and "by another process" not in line]
    assert len(mine) == len(METHODS)
    assert results(tmp_path) == results(finished)
    assert len(list((tmp_path / "groupings").iterdir())) == 1


def test_the_command_line_is_that_of_main(files, tmp_path):
    process = command(files, tmp_path, "--config.methds=3")
    _, errors = process.communicate()
    assert process.returncode == EXIT_USER and errors.startswith("error: ") and "methods" in errors
    assert len(errors.splitlines()) == 1


def test_the_clock_knows_what_each_method_takes():
    def run(method):
        return grid.Run(method, grid.Setting({}, "on tiny", "tiny", ()), 0, None, None)

    clock = grid.Clock()
    assert clock.rest([run("a")]) == "time left unknown"
    clock.add(run("a"), 10)
    clock.add(run("a"), 20)
    clock.add(run("b"), 5)
    clock.add(run("b"), 0)  # another process did it
    assert clock.rest([run("a"), run("b")]) == "about 20.0 s left"
    assert clock.rest([run("c")]) == "about 10.0 s left" and clock.rest([]) == "nothing left"


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
