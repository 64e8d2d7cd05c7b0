"""The command line: options, and what it says to wrong ones."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from jax_promptmtl import main
from jax_promptmtl.core import command
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.engine.preemption import interruptible

ROOT = pathlib.Path(__file__).parent.parent


def run(*arguments):
    command = [sys.executable, "-m", "jax_promptmtl.main", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})


def test_options_reach_the_printed_config():
    done = run("--config=configs/mmap.py", "--config.suite.shots=3", "--config.method.sets=('task',)", "--print_config")
    config = json.loads(done.stdout)
    assert done.returncode == 0 and config["suite"]["shots"] == 3 and config["method"]["sets"] == ["task"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--config=configs/mmap.py", "--config.metod=3"], ["metod", "method"]),
        (["--config=configs/mmap.py", "--config.suite.shots=abc"], ["abc", "shots"]),
        (["--config=configs/mmap.py", "seed=3"], ["seed=3", "--config.seed"]),
        (["--config=configs/none.py"], ["configs/none.py", "No such file"]),
        (["--config=configs/mmap.py", "--config.suite.name=iconz", "--dry_run"], ["iconz", "icons"]),
        (["--config=configs/mmap.py", "--workdir=gs://bucket/run"], ["gs://bucket/run", "mount"]),
        (["--config=configs/mmap.py", "--multihost=yes"], ["yes", "auto, off, on"]),
        ([], ["--config=configs/mmap.py"]),
    ],
)
def test_wrong_options_are_one_sentence_and_exit_code_2(arguments, words):
    done = run(*arguments)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: ") and all(word in line for word in words)
    assert not done.stdout


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_anywhere_is_exit_code_75_and_one_last_line(kind, capsys):
    before = signal.getsignal(kind)
    assert command.guard(lambda: signal.raise_signal(kind), interruptible()) == 75
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"{kind.name} stopped the run") and last.endswith("run the same command to go on.")
    assert signal.getsignal(kind) == before


def test_nobody_takes_a_signal_for_a_failure(capsys):
    def job():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Exception:
            pytest.fail("caught")

    assert command.guard(job, interruptible()) == 75


def test_a_full_disk_is_one_sentence_and_exit_code_2(capsys):
    def job():
        raise OSError(errno.ENOSPC, "No space left on device", "runs/a/metrics.jsonl")

    assert command.guard(job) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Cannot write runs/a/metrics.jsonl: No space left on device; what was saved before")


def test_other_errors_of_the_system_are_bugs(capsys):
    def job():
        raise OSError(errno.EBADF, "Bad file descriptor")

    assert command.guard(job) == 1 and "Bad file" in capsys.readouterr().err


def test_a_run_that_is_refused_leaves_the_earlier_config(tmp_path):
    before, other = ConfigDict({"seed": 0}), ConfigDict({"seed": 5})
    with main.kept(before, tmp_path, alone=True):
        pass
    with pytest.raises(UserError, match="foreign"), main.kept(other, tmp_path, alone=True):
        raise UserError("The checkpoint is foreign.")
    assert json.loads((tmp_path / "config.json").read_text()) == {"seed": 0}
    with main.kept(other, tmp_path, alone=True):
        assert json.loads((tmp_path / "config.json").read_text()) == {"seed": 5}


def test_a_second_run_on_the_workdir_is_refused_at_once(tmp_path):
    with main.kept(ConfigDict({"seed": 0}), tmp_path, alone=True):
        with pytest.raises(UserError, match="is in use by process"), main.kept(ConfigDict(), tmp_path, alone=True):
            pytest.fail("let in")
        assert json.loads((tmp_path / "config.json").read_text()) == {"seed": 0}
    with main.kept(ConfigDict(), tmp_path, alone=False), main.kept(ConfigDict(), tmp_path, alone=False):
        pass  # a benchmark's processes share one


def test_a_workdir_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write to the work directory"):
        main.kept(ConfigDict(), tmp_path / "file", alone=True).__enter__()
