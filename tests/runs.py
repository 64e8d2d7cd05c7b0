"""Runs of the command line in processes of their own, to be killed, signalled and compared."""

import json
import os
import pathlib
import subprocess
import sys
import time

import jax

ROOT = pathlib.Path(__file__).parent.parent
MAIN = (sys.executable, "-m", "jax_promptmtl.main")
SMALL = {
    "template": "{}",
    "evaluation_batch_size": 16,
    "suite.shots": 2,
    "method.length": 2,
    "method.rows": 1,
    "method.columns": 16,
    "train.batch_size": 8,
    "train.log_every": 5,
    "train.checkpoint_every": 7,
}
TEMPORARY = "*.orbax-checkpoint-tmp*"


def options(files, **changes):
    """Return the options of configs/mmap_vit_b16.py on the tiny CLIP and images of a folder; "__" stands for a dot."""
    values = SMALL | {key.replace("__", "."): value for key, value in changes.items()}
    both = {f"grouping.{key}": value for key, value in values.items() if key.startswith(("method.", "train."))}
    paths = {"backbone.path": files / "clip", "suite.root": files / "images"}
    items = {**both, **values, **paths}.items()
    return ["--config=configs/mmap_vit_b16.py", *(f"--config.{key}={value}" for key, value in items)]


def start(command, workdir, log=None, **environment):
    """Start a command; what it says goes to <log>.out and <log>.err, beside the work directory unless told."""
    log = log or workdir
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    cache["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    clean = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    with pathlib.Path(f"{log}.out").open("w") as out, pathlib.Path(f"{log}.err").open("w") as err:
        command = [*map(str, command), f"--workdir={workdir}"]
        env = clean | {"JAX_PLATFORMS": "cpu", "PYTHON": sys.executable} | cache | environment
        return subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err, env=env)


def said(log, name="err"):
    """Return what a run has said so far."""
    return pathlib.Path(f"{log}.{name}").read_text()


def until(process, condition, seconds=600):
    """Wait until something is so, the process has ended, or time is up; return whether it became so."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return condition()


def finish(process, workdir, code=0, seconds=1800):
    """Wait for the end and check the exit code."""
    found = process.wait(seconds)
    assert found == code, f"exit code {found}, not {code}: {said(workdir)[-3000:]}"


def checkpoint(workdir, name="train"):
    """Return the description of the newest checkpoint of a training."""
    folders = [path for path in (workdir / "checkpoints" / name).glob("*") if path.name.isdigit()]
    return json.loads((max(folders) / "meta" / "metadata").read_text())


def records(workdir):
    """Return metrics.jsonl."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def outcome(workdir):
    """Return all that must be equal to the bit: parameters and optimisers by checksum, metrics, groups, accuracies."""
    found = {name: checkpoint(workdir, name) for name in ("global", "train")}
    return {
        "checksums": {name: (meta["step"], meta["crc32"]) for name, meta in found.items()},
        "metrics": (workdir / "metrics.jsonl").read_bytes(),
        "observed": (workdir / "observed" / "global.jsonl").read_bytes(),
        "groups": (workdir / "grouping.json").read_bytes(),
        "accuracy": json.loads((workdir / "results.json").read_text())["accuracy"],
    }
