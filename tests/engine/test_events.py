"""Event files, read back by TensorBoard."""

import math
import subprocess
import sys
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from jax_promptmtl.engine.events import Events


def scalars(folder):
    """Return what TensorBoard shows: {tag: [(step, value)]}."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_reads_every_value_step_and_name(tmp_path):
    events = Events(tmp_path / "a" / "main", purge=1)
    steps = [0, 1, 127, 128, 300, 2**31, 2**40]
    for step in steps:
        events.scalars(step, {"loss": step / 3, "accuracy/Ölbild, π": np.float32(0.1), "x" * 300: -1e30})
    events.close()
    found = scalars(tmp_path / "a" / "main")
    assert found.keys() == {"loss", "accuracy/Ölbild, π", "x" * 300}
    assert found["loss"] == [(step, np.float32(step / 3)) for step in steps]
    assert found["accuracy/Ölbild, π"][0][1] == np.float32(0.1)


def test_values_that_are_no_numbers_are_kept(tmp_path):
    events = Events(tmp_path, purge=0)
    events.scalars(1, {"a": math.nan, "b": math.inf, "c": -math.inf})
    events.close()
    found = scalars(tmp_path)
    assert math.isnan(found["a"][0][1]) and found["b"] == [(1, math.inf)] and found["c"] == [(1, -math.inf)]


def test_a_resumed_run_hides_the_steps_that_it_does_again(tmp_path):
    for first, last, factor in ((1, 6, 1), (4, 8, 10)):
        events = Events(tmp_path, purge=first)
        for step in range(first, last):
            events.scalars(step, {"loss": factor * step})
        events.close()
    assert scalars(tmp_path) == {"loss": [(1, 1), (2, 2), (3, 3), (4, 40), (5, 50), (6, 60), (7, 70)]}


def test_what_was_written_is_there_while_the_file_is_open(tmp_path):
    events, start = Events(tmp_path, purge=0), time.time()
    events.scalars(5, {"loss": 2.0})
    (path,) = tmp_path.iterdir()
    version, session, event = EventFileLoader(str(path)).Load()
    assert version.file_version == "brain.Event:2" and session.session_log.status == 1 and event.step == 5
    assert start - 60 < event.wall_time < time.time() + 60
    events.close()


def test_checksums_are_checked(tmp_path):
    events = Events(tmp_path, purge=0)
    events.scalars(5, {"loss": 2.0})
    events.close()
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    assert len(list(EventFileLoader(str(path)).Load())) == 2  # the damaged one is left out


def test_two_files_of_one_moment_are_two(tmp_path):
    for _ in range(20):
        Events(tmp_path, purge=0).close()
    assert len(list(tmp_path.iterdir())) == 20


@pytest.mark.parametrize("module", ["jax_promptmtl.engine.writer", "jax_promptmtl.engine.loop"])
def test_no_other_framework_comes_along(module):
    code = f"import sys, {module}; print({{'torch', 'tensorflow', 'tensorboard'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
