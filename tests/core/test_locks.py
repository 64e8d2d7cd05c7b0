"""Claims: one owner at a time, whatever became of the last one."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from jax_promptmtl.core import locks

HERE = {"pid": os.getpid(), "host": socket.gethostname(), "since": "now", "born": locks.born(os.getpid())}
DEAD = 2**22 + 1  # beyond the largest process number of Linux
CONTEND = """
import pathlib, sys, time
from jax_promptmtl.core import locks

def wait(path):
    while not path.exists():
        time.sleep(0.001)

path, number = pathlib.Path(sys.argv[1]), sys.argv[2]
path.with_name("ready" + number).touch()
wait(path.with_name("go"))
try:
    with locks.hold(path):
        print("won")
        wait(path.with_name("stop"))
except locks.Busy:
    print("busy")
"""


def test_a_claim_is_held_and_given_back(tmp_path):
    path = tmp_path / "claims" / "a.claim"
    with locks.hold(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
        with pytest.raises(locks.Busy, match=str(os.getpid())), locks.hold(path):
            pass
        assert path.exists()
    assert not path.exists()


def test_a_claim_is_given_back_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), locks.hold(tmp_path / "a.claim"):
        raise RuntimeError
    with locks.hold(tmp_path / "a.claim"):
        pass


GONE = {
    "dead": json.dumps(HERE | {"pid": DEAD, "born": ""}),
    "number given again": json.dumps(HERE | {"born": "another boot/1"}),
}
ALIVE = {
    "this process": json.dumps(HERE),
    "another host": json.dumps(HERE | {"pid": DEAD, "host": "elsewhere"}),
    "being written": "",
}


@pytest.mark.parametrize("kind", GONE)
def test_a_dead_owner_is_replaced(kind, tmp_path):
    path = tmp_path / "a.claim"
    path.write_text(GONE[kind])
    with locks.hold(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("kind", ALIVE)
def test_a_living_owner_is_respected(kind, tmp_path):
    path = tmp_path / "a.claim"
    path.write_text(ALIVE[kind])
    with pytest.raises(locks.Busy), locks.hold(path):
        pass
    assert path.read_text() == ALIVE[kind]


def test_a_torn_claim_is_replaced_when_it_is_old(tmp_path):
    path = tmp_path / "a.claim"
    path.write_text('{"pid": 1')
    os.utime(path, (0, 0))
    with locks.hold(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.multiproc
@pytest.mark.parametrize("left", [None, GONE["dead"]], ids=["free", "left by a dead process"])
def test_of_several_processes_one_wins(left, tmp_path):
    path = tmp_path / "a.claim"
    if left:
        path.write_text(left)
    command = [sys.executable, "-c", CONTEND, str(path)]
    rivals = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(4)]
    wait_for(lambda: len(list(tmp_path.glob("ready*"))) == 4)
    (tmp_path / "go").touch()
    wait_for(lambda: sum(rival.poll() is not None for rival in rivals) == 3)
    (tmp_path / "stop").touch()
    assert sorted(rival.communicate()[0].strip() for rival in rivals) == ["busy"] * 3 + ["won"]


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
