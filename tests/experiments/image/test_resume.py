"""A run that is killed or stopped anywhere and started again ends as if nothing had happened, to the bit."""

import contextlib
import random
import signal

import pytest

from tests import runs
from tests.tiny import save_clip, save_images

pytestmark = [pytest.mark.slow, pytest.mark.multiproc]
EPOCHS = {"grouping__train.epochs": 10, "train__epochs": 100}  # of 3 steps


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    save_clip(folder / "clip")
    save_images(folder / "images")
    return folder


@pytest.fixture(scope="module")
def command(files):
    return [*runs.MAIN, *runs.options(files, **EPOCHS)]


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """What a run that nobody disturbs leaves behind."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    runs.finish(runs.start(command, workdir), workdir)
    return runs.outcome(workdir)


def saving(workdir):
    """Return the folders of saves that are not complete, each with what tells it from an earlier one of its name."""
    found = set()
    for path in (workdir / "checkpoints").glob(f"*/{runs.TEMPORARY}"):
        with contextlib.suppress(FileNotFoundError):
            found.add((path.name, path.stat().st_ino))
    return found


def lines(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(moment, process, workdir, rng, left):
    """Wait for a random moment of a kind; `left` is what earlier kills left of their saves."""
    if moment == "start":
        runs.until(process, lambda: False, rng.uniform(0, 4))
    elif moment == "save":
        runs.until(process, lambda: saving(workdir) - left)
        runs.until(process, lambda: False, rng.uniform(0, 0.03))
    else:
        before = lines(workdir)
        runs.until(process, lambda: lines(workdir) > before)
        runs.until(process, lambda: False, rng.uniform(0, 0.5))


def test_killed_ten_times_it_ends_the_same_to_the_bit(command, whole, tmp_path):
    rng, workdir, inside = random.Random(0), tmp_path / "run", 0
    moments = ["step", "save", "save", "start", "save", "step", "save", "start", "save", "save"]
    for number, moment in enumerate(moments):
        left = saving(workdir)
        process = runs.start(command, workdir)
        wait_for(moment, process, workdir, rng, left)
        process.kill()
        assert process.wait() == -signal.SIGKILL, f"done before kill {number}: {runs.said(workdir)[-2000:]}"
        inside += bool(saving(workdir) - left)
    runs.finish(runs.start(command, workdir), workdir)
    assert runs.outcome(workdir) == whole
    assert inside >= 3, "too few kills hit a save to prove anything"
    print(f"{len(moments)} kills, {inside} of them inside a save")


STAGES = [("zero-shot", "SIGINT"), ("task grouping", "SIGTERM"), ("training", "SIGUSR1"), ("evaluation", "SIGTERM")]


def test_stopped_in_every_stage_it_says_so_and_ends_the_same_to_the_bit(command, whole, tmp_path):
    workdir = tmp_path / "run"
    for stage, name in STAGES:
        process = runs.start(command, workdir)
        assert runs.until(process, lambda stage=stage: f"{stage} ..." in runs.said(workdir, "out")), stage
        stop(process, workdir, name)
    process = runs.start(command, workdir)
    runs.finish(process, workdir)
    assert runs.outcome(workdir) == whole


def test_stopped_inside_a_save_it_says_so_and_ends_the_same_to_the_bit(command, whole, tmp_path):
    workdir = tmp_path / "run"
    process = runs.start(command, workdir)
    assert runs.until(process, lambda: saving(workdir))
    stop(process, workdir, "SIGTERM")
    runs.finish(runs.start(command, workdir), workdir)
    assert runs.outcome(workdir) == whole


def stop(process, workdir, name):
    """Signal a run, and check the exit code and the last line."""
    process.send_signal(getattr(signal, name))
    runs.finish(process, workdir, code=75)
    last = runs.said(workdir).splitlines()[-1]
    assert last.startswith(f"{name} stopped") and last.endswith("run the same command to go on."), last
