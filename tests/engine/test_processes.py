"""Two processes that talk, on the toy problem: the same training as in one, one checkpoint, one stop for both."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.engine import processes
from jax_promptmtl.engine.loop import Hooks, train

HERE = pathlib.Path(__file__).parent
SCRIPT = """
    import os, runpy, signal, sys, time
    import jax, numpy as np
    parallel = "fsdp" if sys.argv[3] == "fsdp" else "jit"
    jax.config.update("jax_num_cpu_devices", 2 if parallel == "fsdp" else 1)
    from jax_promptmtl.engine import loop, processes
    processes.connect("auto")
    toy = runpy.run_path(sys.argv[1])
    from jax_promptmtl.engine.preemption import Preempted
    me = jax.process_index()

    def part(batch):  # 18 and 8 examples: 9 and 4 for each
        return {key: np.split(value, 2)[me] for key, value in batch.items()}

    def batches(start):
        for step, batch in enumerate(toy["toy_batches"](start), start):
            if sys.argv[3] == "stop" and me == 1 and step == 4:
                os.kill(os.getpid(), signal.SIGUSR1)
            if sys.argv[3] == "stop":
                time.sleep(0.05)  # a step no faster than the processes can talk
            yield part(batch)

    seed = me if sys.argv[3] == "differ" else 0
    def observe(per_task, batch):
        return {"weight": batch["weight"].sum(), "label": (batch["label"] * (batch["weight"] > 0)).sum()}

    def place(*state, place=loop.place):
        placed = place(*state)
        leaves = [leaf for leaf in jax.tree.leaves(placed) if leaf.size > 1]
        print("share of a device", {leaf.addressable_shards[0].data.size / leaf.size for leaf in leaves})
        return placed

    loop.place = place
    seen, steps, often = [], 12, {"checkpoint_every": 0, "evaluate_every": 6}
    if sys.argv[3] == "stop":  # evaluates and saves all the time, in which a stop must not be missed either
        steps, often = 4000, {"checkpoint_every": 1, "evaluate_every": 1}
    hooks = loop.Hooks(
        observe=observe,
        on_observed=lambda step, observed: seen.append((step, {k: float(v) for k, v in observed.items()})),
        evaluation=lambda: [part(toy["toy_batch"](100, 8))],
    )
    config = toy["toy_config"](seed=seed, steps=steps, log_every=1, **often)
    config["parallel"] = parallel
    try:
        result = loop.train(toy["toy_problem"](), batches, config, sys.argv[2], name="main", hooks=hooks)
        print("evaluation", result.evaluation["accuracy"], "seen", len(seen), flush=True)
    except Preempted as stopped:
        print(stopped, flush=True)
        processes.leave(75)
    except processes.UserError as error:
        print(error, flush=True)
        processes.leave(2)
    processes.leave(0)
"""


WAIT = """
    import os, signal, time
    import jax
    jax.config.update("jax_num_cpu_devices", 1)
    from jax_promptmtl.engine import processes
    from jax_promptmtl.engine.preemption import Preempted, heeding, interruptible

    try:
        with interruptible():
            processes.connect("auto")
            for number in heeding(range(1000)):
                if number == 3 and jax.process_index() == 0:
                    os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)
    except Preempted as stopped:
        print(number, stopped, flush=True)
        processes.leave(75)
"""

JOIN = """
    import jax
    jax.config.update("jax_num_cpu_devices", 1)
    from jax_promptmtl.engine import processes
    processes.connect("auto")
    print(processes.part(), jax.device_count(), processes.several(), flush=True)
    processes.leave(0)
"""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def run_two(workdir, kind):
    """Run the script of a training in two processes; return their exit codes and what they printed."""
    return run_pair([SCRIPT, HERE / "conftest.py", workdir, kind], addresses())


def addresses():
    """Return what two processes need to know to find each other."""
    shared = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", processes.COUNT: "2"}
    return [shared | {processes.INDEX: str(index)} for index in range(2)]


def run_pair(words, environments):
    """Run a script with arguments in two processes that have environments of their own."""
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    environment |= {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-c", *map(textwrap.dedent, map(str, words))]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, env=environment | each, **pipes) for each in environments]
    try:
        said = [process.communicate(timeout=600) for process in both]
    finally:
        for process in both:
            process.kill()
    return [process.returncode for process in both], [out for out, _ in said], [err for _, err in said]


def last(out):
    return out.splitlines()[-1]


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.multiproc
@pytest.mark.parametrize("kind, devices, share", [("run", 1, 1.0), ("fsdp", 2, 0.25)])
def test_two_processes_train_and_evaluate_as_one(toy, tmp_path, kind, devices, share):
    codes, out, err = run_two(tmp_path / "two", kind)
    assert codes == [0, 0], err
    assert f"process 1 of 2: {devices} of {2 * devices} devices" in err[1]
    assert f"share of a device {{{share}}}" in out[0]
    assert last(out[0]) == last(out[1])
    assert last(out[0]).startswith("evaluation") and last(out[0]).endswith("seen 12")
    config = toy["config"](steps=12, log_every=1, checkpoint_every=0, evaluate_every=6)
    evaluation = lambda: [toy["batch"](100, 8)]  # noqa: E731
    options = {"name": "main", "hooks": Hooks(evaluation=evaluation)}
    train(toy["problem"](), toy["batches"], config, tmp_path / "one", **options)
    ours, theirs = records(tmp_path / "two"), records(tmp_path / "one")
    assert len(ours) == len(theirs) == 14
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine["step"], mine.get("evaluation")) == (other["step"], other.get("evaluation"))
        if "loss" in mine:
            pair = [[record["loss"], record["grad_norm"]] for record in (mine, other)]
            np.testing.assert_allclose(*pair, rtol=1e-5)
            assert mine["accuracy"] == other["accuracy"]
    again = train(
        toy["problem"](), pytest.fail, config, tmp_path / "two", name="main", hooks=Hooks(evaluation=evaluation)
    )
    assert again.evaluation == theirs[-1]["evaluation"]  # from their checkpoint, in one process with eight devices
    observed = [json.loads(line) for line in (tmp_path / "two" / "observed" / "main.jsonl").read_text().splitlines()]
    assert [r["observed"]["label"] for r in observed] == [int(toy["batch"](step)["label"].sum()) for step in range(12)]


@pytest.mark.multiproc
def test_a_signal_to_one_stops_both_at_the_same_step(tmp_path):
    codes, out, err = run_two(tmp_path, "stop")
    assert codes == [75, 75], err
    assert last(out[0]) == last(out[1])
    saved = max(path.name for path in (tmp_path / "checkpoints" / "main").iterdir() if path.name.isdigit())
    assert last(out[0]).startswith(f"SIGTERM stopped 'main' after step {int(saved)} of 4000")


@pytest.mark.multiproc
def test_outside_a_training_a_signal_stops_both_at_the_same_place():
    codes, out, err = run_pair([WAIT], addresses())
    assert codes == [75, 75], err
    assert last(out[0]) == last(out[1])
    assert last(out[0]).endswith("SIGTERM stopped the run; what was saved stays, run the same command to go on.")


@pytest.mark.slow
@pytest.mark.multiproc
def test_different_configs_are_refused_by_both(tmp_path):
    codes, out, _ = run_two(tmp_path, "differ")
    assert set(codes) <= {2, -signal.SIGABRT, 1} and 2 in codes
    assert any("Config or data of process 1 differs from that of process 0" in text for text in out)
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.multiproc
def test_slurm_variables_are_enough_for_jax_to_find_the_other_process():
    """As srun sets them; nothing else tells the processes of each other."""
    shared = {"SLURM_JOB_ID": "4711", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    shared["JAX_COORDINATOR_PORT"] = free_port()
    each = [shared | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]
    codes, out, err = run_pair([JOIN], each)
    assert codes == [0, 0], err
    assert [last(text) for text in out] == [
        f"{{'process_index': {index}, 'process_count': 2}} 2 True" for index in range(2)
    ]


@pytest.mark.parametrize(
    "mode, environment, wanted",
    [
        ("auto", {}, False),
        ("on", {}, True),
        ("off", {"SLURM_NTASKS": "8"}, False),
        ("auto", {"SLURM_NTASKS": "8", "SLURM_STEP_NODELIST": "n[1-2]"}, True),
        ("auto", {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NODELIST": "n1"}, False),
        ("auto", {processes.COUNT: "2"}, True),
        ("auto", {processes.COUNT: "1"}, False),
        ("auto", {"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ("auto", {"TPU_WORKER_HOSTNAMES": "localhost"}, False),
    ],
)
def test_launchers_are_recognised(mode, environment, wanted):
    assert processes.wanted(mode, environment) is wanted


def test_a_slurm_job_without_srun_and_an_unknown_mode_are_errors():
    with pytest.raises(UserError, match="8 tasks; start them with srun"):
        processes.wanted("auto", {"SLURM_NTASKS": "8"})
    with pytest.raises(UserError, match="value of --multihost 'yes'"):
        processes.wanted("yes", {})


def test_one_process_agrees_with_itself():
    with processes.in_turn("nothing"):
        processes.require_same("anything", object())
    assert processes.first() and not processes.several()
    assert processes.part() == {"process_index": 0, "process_count": 1}
