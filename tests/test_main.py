"""The command line: options, and what it says to wrong ones."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

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
        ([], ["--config=configs/mmap.py"]),
    ],
)
def test_wrong_options_are_one_sentence_and_exit_code_2(arguments, words):
    done = run(*arguments)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: ") and all(word in line for word in words)
    assert not done.stdout
