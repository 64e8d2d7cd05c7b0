"""Two processes through launch/local.sh: the same numbers as one, agreement, and a bounded end when one dies."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests import runs
from tests.tiny import save_clip, save_images

LAUNCHER = "launch/local.sh"
EPOCHS = {"grouping__train.epochs": 4, "train__epochs": 40}  # of 3 steps
TOLERANCE = 2e-4  # of losses and gradients after 12 and 120 steps: the sums are made in another order
HEARTBEAT = 15
processes = pytest.mark.multiproc
minutes = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    save_clip(folder / "clip")
    save_images(folder / "images")
    return folder


@pytest.fixture(scope="module")
def options(files):
    return runs.options(files, **EPOCHS)


@pytest.fixture(scope="module")
def one(options, tmp_path_factory):
    """The work directory of one process that drives two devices."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    runs.finish(runs.start([*runs.MAIN, *options], workdir, JAX_NUM_CPU_DEVICES="2"), workdir)
    return workdir


@pytest.fixture(scope="module")
def two(options, tmp_path_factory):
    """The work directory of two processes that nobody disturbs."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    runs.finish(start(options, workdir), workdir)
    return workdir


def start(options, workdir, **environment):
    command = [LAUNCHER, "2", *options]
    return runs.start(command, workdir, JAX_NUM_CPU_DEVICES="1", **environment)


def children(process):
    """Return the process numbers of the two processes of a launcher, process 0 first."""
    found = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "jax_promptmtl.main"], capture_output=True, text=True
    )
    return sorted(map(int, found.stdout.split()))


def flat(record):
    """Return the numbers of a record by path."""
    inner = record.get("evaluation", {})
    return {key: value for key, value in (record | inner).items() if isinstance(value, float)}


@processes
@minutes
def test_two_processes_learn_what_one_learns(one, two):
    assert "process 1 of 2: 1 of 2 devices" in runs.said(two)
    ours, theirs = runs.records(two), runs.records(one)
    assert [(r["stage"], r["step"]) for r in ours] == [(r["stage"], r["step"]) for r in theirs]
    worst = 0.0
    for mine, other in zip(map(flat, ours), map(flat, theirs), strict=True):
        assert mine.keys() == other.keys()
        worst = max(worst, *(abs(mine[key] - other[key]) / max(1, abs(other[key])) for key in mine))
    assert worst < TOLERANCE
    print(f"largest difference of a metric over {len(ours)} records: {worst:.1e}")
    groups = [json.loads((workdir / "grouping.json").read_text())["groups"] for workdir in (two, one)]
    assert groups[0] == groups[1]
    accuracies = [runs.outcome(workdir)["accuracy"] for workdir in (two, one)]
    for name, expected in accuracies[1].items():
        assert accuracies[0][name] == pytest.approx(expected, abs=20)  # percent; an image is 16.7


@processes
@minutes
def test_weights_divided_among_processes_learn_the_same_and_load_in_one(files, tmp_path):
    paths = [f"--config.backbone.path={files / 'clip'}", f"--config.suite.root={files / 'images'}"]
    sizes = {
        "suite.shots": 2,
        "train.batch_size": 8,
        "train.epochs": 2,
        "evaluation_batch_size": 16,
        "train.log_every": 1,
    }
    options = ["--config=configs/clip_vit_b16.py:full_ft", *paths, *(f"--config.{k}={v}" for k, v in sizes.items())]
    divided, whole = tmp_path / "divided", tmp_path / "whole"
    both = runs.start([LAUNCHER, "2", *options, "--config.parallel=fsdp"], divided, JAX_NUM_CPU_DEVICES="2")
    runs.finish(both, divided)
    runs.finish(runs.start([*runs.MAIN, *options], whole, JAX_NUM_CPU_DEVICES="2"), whole)
    ours, theirs = (list(map(flat, runs.records(workdir))) for workdir in (divided, whole))
    assert len(ours) == len(theirs) > 0
    worst = max(abs(a[key] - b[key]) / max(1, abs(b[key])) for a, b in zip(ours, theirs, strict=True) for key in b)
    assert worst < TOLERANCE
    print(f"largest difference of a metric: {worst:.1e}")
    accuracy = json.loads((divided / "results.json").read_text())["accuracy"]
    again = runs.start([*runs.MAIN, *options, "--config.stage=evaluate"], divided, JAX_NUM_CPU_DEVICES="1")
    runs.finish(again, divided)
    assert json.loads((divided / "results.json").read_text())["accuracy"] == accuracy


@processes
@minutes
def test_one_signalled_process_stops_both_at_one_step_and_they_go_on(options, two, tmp_path):
    workdir = tmp_path / "run"
    process = start(options, workdir)
    assert runs.until(process, lambda: any((workdir / "checkpoints" / "train").glob("000*")))
    line = stop(process, workdir, "SIGTERM", [1])
    assert f"'train' after step {runs.checkpoint(workdir)['step']} of 120" in line
    runs.finish(start(options, workdir), workdir)
    assert runs.outcome(workdir) == runs.outcome(two)


STAGES = [("zero-shot", "SIGINT", [0]), ("task grouping", "SIGTERM", [1]), ("training", "SIGUSR1", [0, 1])]


@processes
@minutes
def test_signalled_in_every_stage_they_go_on_to_the_same_end(options, two, tmp_path):
    workdir = tmp_path / "run"
    for stage, name, who in STAGES:
        process = start(options, workdir)
        assert runs.until(process, lambda stage=stage: f"{stage} ..." in runs.said(workdir, "out")), stage
        stop(process, workdir, name, who)
    runs.finish(start(options, workdir), workdir)
    assert runs.outcome(workdir) == runs.outcome(two)


def stop(process, workdir, name, who):
    """Signal some processes of a launcher; all must exit with 75 and say the same line, which is returned."""
    pids = children(process)
    for index in who:
        os.kill(pids[index], getattr(signal, name))
    runs.finish(process, workdir, code=75)
    said = [line for line in runs.said(workdir).splitlines() if line.startswith("SIGTERM stopped")]
    assert len(said) == 2 and said[0] == said[1], runs.said(workdir)[-2000:]
    return said[0]


@processes
@minutes
def test_killed_together_they_go_on_to_the_same_end(options, two, tmp_path):
    workdir = tmp_path / "run"
    process = start(options, workdir)
    assert runs.until(process, lambda: any((workdir / "checkpoints" / "train").glob("000*")))
    killed = time.monotonic()
    os.kill(children(process)[1], signal.SIGKILL)
    runs.finish(process, workdir, code=137)
    assert time.monotonic() - killed < 60
    assert runs.said(workdir).splitlines()[-1].startswith("launch/local.sh: a process ended with exit code 137")
    runs.finish(start(options, workdir), workdir)
    assert runs.outcome(workdir) == runs.outcome(two)


def start_pair(options, workdir, change=()):
    """Start two processes without a launcher; `change` are options of the second alone."""
    port = str(21000 + os.getpid() % 20000)
    shared = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_PROMPTMTL_PROCESSES": "2"}
    shared |= {"JAX_NUM_CPU_DEVICES": "1", "JAX_PROMPTMTL_HEARTBEAT": str(HEARTBEAT)}
    pair = []
    for index, more in enumerate(((), change)):
        log = workdir.with_name(f"{workdir.name}{index}")
        command = [*runs.MAIN, *options, *more]
        pair.append((runs.start(command, workdir, log, JAX_PROMPTMTL_PROCESS=str(index), **shared), log))
    return pair


@processes
@minutes
def test_a_dead_peer_ends_the_other_in_bounded_time_without_a_launcher(options, tmp_path):
    (first, log), (second, _) = start_pair(options, tmp_path / "run")
    assert runs.until(first, lambda: "training ..." in runs.said(log, "out"))
    second.kill()
    killed = time.monotonic()
    assert first.wait(HEARTBEAT + 60) not in (0, 75)
    assert runs.said(log).strip()
    print(f"ended {time.monotonic() - killed:.0f} s after its peer; heartbeat {HEARTBEAT} s")
    print(runs.said(log)[-800:])


@processes
@minutes
def test_processes_with_different_configs_refuse_to_start(options, tmp_path):
    (first, log), (second, _) = start_pair(options, tmp_path / "run", ["--config.seed=1"])
    codes = first.wait(600), second.wait(600)
    assert 2 in codes and 0 not in codes
    assert "config or version of process 1 differs from that of process 0" in runs.said(log)


def launch(*arguments, **environment):
    environment = os.environ | {"PYTHON": sys.executable} | environment
    return subprocess.run([LAUNCHER, *arguments], cwd=runs.ROOT, capture_output=True, text=True, env=environment)


def test_the_launcher_says_how_to_use_it_and_what_it_does():
    assert launch("two", "--config=x").returncode == 2
    done = launch("2", "--config=configs/mmap.py", DRY_RUN="1")
    assert done.returncode == 0
    assert "+ 2 x " in done.stderr and "-m jax_promptmtl.main --config=configs/mmap.py" in done.stderr


FAKE = """#!/usr/bin/env bash
# A python that ends as FAKE_<process> says.
name=FAKE_$JAX_PROMPTMTL_PROCESS
${!name}
"""


@pytest.mark.parametrize(
    "first, second, code",
    [("exit 0", "exit 0", 0), ("exit 75", "exit 75", 75), ("exit 0", "exit 75", 75), ("exec sleep 60", "exit 3", 3)],
)
def test_the_launcher_returns_the_code_that_counts_and_leaves_nobody_behind(first, second, code, tmp_path):
    fake = tmp_path / "python"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    begin = time.monotonic()
    done = launch("2", "--config=x", PYTHON=str(fake), PORT="1", FAKE_0=first, FAKE_1=second)
    assert done.returncode == code and time.monotonic() - begin < 20
    assert ("run the same command again" in done.stderr) == (code == 75)
