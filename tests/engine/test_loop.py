import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import Preempted, UserError
from jax_promptmtl.core.locks import lock
from jax_promptmtl.engine import loop
from jax_promptmtl.engine.diagnosis import Diverged
from jax_promptmtl.engine.loop import Hooks, train
from jax_promptmtl.engine.parallel import parallelize
from jax_promptmtl.engine.preemption import listen

HERE = pathlib.Path(__file__).parent


def observe(per_task_grads, batch):
    rows = per_task_grads["method"]["prompt"].reshape(3, -1)
    return {"gram": rows @ rows.T}


def run(toy, workdir, batches=None, seen=None, **changes):
    return train(
        toy["problem"](),
        batches or toy["batches"],
        toy["config"](**changes),
        workdir,
        name="main",
        hooks=Hooks(
            observe=observe,
            on_observed=None if seen is None else lambda step, observed: seen.append((step, observed["gram"].tolist())),
            evaluation=lambda: [toy["batch"](100), toy["batch"](101, 7)],
        ),
    )


def files(workdir):
    return {name: (workdir / name).read_bytes() for name in ("metrics.jsonl", "observed/main.jsonl")}


@pytest.fixture(scope="module")
def reference():
    return {}


@pytest.fixture
def whole(reference, tmp_path_factory, toy):
    """An uninterrupted run: result, files and observations."""
    if not reference:
        workdir, seen = tmp_path_factory.mktemp("whole"), []
        reference.update(result=run(toy, workdir, seen=seen), files=files(workdir), seen=seen, workdir=workdir)
    return reference


def test_runs_that_differ_in_their_seed_share_one_program(toy, tmp_path, monkeypatch):
    problem, programs = toy["problem"](), []

    def loss(per_task, frozen, batch, rng):
        noise = jax.random.normal(rng, batch["image"].shape)
        return problem.loss(per_task, frozen, batch | {"image": batch["image"] + noise}, rng)

    def spy(fn, mode, **options):
        compiled = parallelize(fn, mode, **options)

        def call(*arguments):
            programs.append(jax.jit(fn).lower(*arguments).as_text())
            return compiled(*arguments)

        return call

    monkeypatch.setattr(loop, "parallelize", spy)
    noisy = dataclasses.replace(problem, loss=loss)
    results = [
        train(noisy, toy["batches"], toy["config"](seed=seed, steps=2), tmp_path / str(seed), name="main")
        for seed in (0, 1)
    ]
    assert len(programs) == 4 and len(set(programs)) == 1
    assert tree.checksums(results[0].params) != tree.checksums(results[1].params)


def assert_same(whole, result, workdir, seen):
    assert tree.checksums(result.params) == tree.checksums(whole["result"].params)
    assert result.evaluation == whole["result"].evaluation
    assert files(workdir) == whole["files"]
    assert seen == whole["seen"]


def interrupt(kind, at):
    """A crash, or a signal, while the batch after `at` steps is read."""

    def batches_of(toy):
        def batches(start):
            for number, batch in enumerate(toy["batches"](start), start):
                if number == at and kind == "crash":
                    raise RuntimeError("crash")
                if number == at:
                    signal.raise_signal(kind)
                yield batch

        return batches

    return batches_of


def test_metrics_say_what_happened(whole, toy):
    records = [json.loads(line) for line in whole["files"]["metrics.jsonl"].splitlines()]
    assert [(r["step"], "evaluation" in r) for r in records] == [
        (4, False),
        (6, True),
        (8, False),
        (12, False),
        (12, True),
    ]
    examples = [toy["batch"](step) for step in range(4)]
    first = records[0]
    assert first["learning_rate"] == pytest.approx(0.1)  # step 3 is the first of the second epoch
    right = sum(
        first[f"accuracy/{name}"] * sum((b["task"] == t).sum() for b in examples) for t, name in enumerate("abc")
    )
    assert first["accuracy"] == pytest.approx(right / 72)
    assert records[-1]["evaluation"] == whole["result"].evaluation
    assert [step for step, _ in whole["seen"]] == list(range(1, 13))
    assert whole["result"].images_per_second > 0
    spent = whole["result"].spent
    assert spent.keys() == {"steps", "data", "compilation", "evaluation", "checkpoints"}
    assert min(spent.values()) > 0 and sum(spent.values()) == whole["result"].seconds
    assert list((whole["workdir"] / "tensorboard" / "main").iterdir())


def test_training_reduces_the_loss(toy, tmp_path):
    def batches(start):
        while True:
            yield toy["batch"](0)

    changes = {"steps": 60, "steps_per_epoch": 10, "log_every": 10, "checkpoint_every": 0, "evaluate_every": 0}
    run(toy, tmp_path, batches, **changes)
    losses = [json.loads(line).get("loss") for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert losses[-2] < 0.6 * losses[0]


@pytest.mark.parametrize("at", [2, 5, 7, 11])
def test_resume_after_a_crash_is_bitwise_the_uninterrupted_run(whole, toy, tmp_path, at):
    with pytest.raises(RuntimeError, match="crash"):
        run(toy, tmp_path, interrupt("crash", at)(toy))
    seen = []
    assert_same(whole, run(toy, tmp_path, seen=seen), tmp_path, seen)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_saves_and_resume_loses_no_step(whole, toy, tmp_path, kind):
    before = signal.getsignal(kind)
    with pytest.raises(Preempted, match=f"{kind.name} stopped 'main' after step 5 of 12"):
        run(toy, tmp_path, interrupt(kind, 4)(toy))
    assert signal.getsignal(kind) == before
    starts, seen = [], []

    def batches(start):
        starts.append(start)
        return toy["batches"](start)

    assert_same(whole, run(toy, tmp_path, batches, seen=seen), tmp_path, seen)
    assert starts == [5]


def test_a_signal_that_kills_the_readers_of_the_data_too_loses_no_step(whole, toy, tmp_path):
    def batches(start):
        yield from (toy["batch"](step) for step in range(start, 5))
        signal.raise_signal(signal.SIGTERM)
        raise RuntimeError("a worker died")

    with pytest.raises(Preempted, match="after step 5 of 12"):
        run(toy, tmp_path, batches)
    seen = []
    assert_same(whole, run(toy, tmp_path, seen=seen), tmp_path, seen)


@pytest.mark.parametrize("at", [6, 12])
def test_a_signal_during_evaluation_is_obeyed_and_the_evaluation_is_repeated(whole, toy, tmp_path, at):
    calls = []

    def evaluation():
        calls.append(None)
        yield toy["batch"](100)
        if len(calls) == at // 6:
            signal.raise_signal(signal.SIGTERM)
        yield toy["batch"](101, 7)

    settings = {"name": "main", "hooks": Hooks(observe=observe, evaluation=evaluation)}
    with pytest.raises(Preempted, match=f"after step {at} of 12"):
        train(toy["problem"](), toy["batches"], toy["config"](), tmp_path, **settings)
    seen = []
    assert_same(whole, run(toy, tmp_path, seen=seen), tmp_path, seen)


def test_a_finished_run_returns_its_result_again(whole, toy, tmp_path):
    run(toy, tmp_path)
    again = run(toy, tmp_path, lambda start: pytest.fail("no batch is needed"))
    assert_same(whole, again, tmp_path, whole["seen"])


def test_pmap_learns_the_same(whole, toy, tmp_path):
    result = run(toy, tmp_path, parallel="pmap")
    for path, leaf in tree.flatten(result.params).items():
        if leaf is not None:
            np.testing.assert_allclose(leaf, tree.flatten(whole["result"].params)[path], rtol=2e-5, atol=2e-6)


def train_on_a_bad_example(toy, workdir, bad, value, **options):
    """Put one value of example 2 of one step's batch wrong; return the message and that batch."""

    def batches(start):
        for number, batch in enumerate(toy["batches"](start), start + 1):
            if number == bad:
                batch["image"][2, 0] = value
            yield batch

    with pytest.raises(Diverged) as stopped:
        train(toy["problem"](), batches, toy["config"](**options), workdir, name="main", hooks=Hooks(name_examples))
    return str(stopped.value), toy["batch"](bad - 1)


def name_examples(step):
    return [f"{step}/{number}.png" for number in range(18)]


@pytest.mark.parametrize("bad", [4, 5])
def test_a_loss_that_is_not_finite_stops_with_step_task_example_and_checkpoint(toy, tmp_path, bad):
    message, batch = train_on_a_bad_example(toy, tmp_path, bad, np.nan)
    assert message.startswith(f"loss is nan at step {bad} of 'main' (task {'abc'[batch['task'][2]]}, ")
    assert f"examples {bad - 1}/2.png)" in message and "newest checkpoint is" in message
    assert message.endswith("00000003.")
    assert sorted(path.name for path in (tmp_path / "checkpoints" / "main").iterdir()) == ["00000003"]


def test_a_gradient_that_overflows_stops_though_the_loss_is_finite(toy, tmp_path):
    problem = toy["problem"]()
    # Hidden units of 1e-30 keep the logits small; the gradient with respect to them is 1e30, its square infinite.
    params = {**problem.params, "method": {"prompt": problem.params["method"]["prompt"] * 1e30}}
    params["backbone"] = {"blocks_0": {"kernel": problem.params["backbone"]["blocks_0"]["kernel"] * 0, "bias": None}}
    frozen = {**problem.frozen, "backbone": {"blocks_0": {"kernel": None, "bias": np.zeros(4, np.float32)}}}
    steep = type(problem)(**{**vars(problem), "params": params, "frozen": frozen})
    with pytest.raises(Diverged, match=r"grad_norm is inf at step 1 of .* no checkpoint was saved before\."):
        train(steep, toy["batches"], toy["config"](), tmp_path, name="main")


def test_data_that_ends_early_is_an_error(toy, tmp_path):
    with pytest.raises(UserError, match="ended after 1 of 12 steps"):
        run(toy, tmp_path, lambda start: iter([toy["batch"](0)]))


def test_nothing_to_train_is_an_error(toy, tmp_path):
    problem = toy["problem"]()
    frozen = type(problem)(**{**vars(problem), "params": jax.tree.map(lambda _: None, problem.params)})
    with pytest.raises(UserError, match="no trainable parameter"):
        train(frozen, toy["batches"], toy["config"](), tmp_path, name="main")


def test_a_second_run_on_the_workdir_is_refused(toy, tmp_path):
    with lock(tmp_path / "checkpoints" / "main.lock"), pytest.raises(UserError, match=r"in use by process .* since"):
        run(toy, tmp_path)
    run(toy, tmp_path, steps=1)  # free again


def test_what_nohup_started_goes_on_without_its_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listen() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("damage", ["a digit", "a line less", "a line more"])
def test_changed_observations_are_refused(toy, tmp_path, damage):
    with pytest.raises(RuntimeError, match="crash"):
        run(toy, tmp_path, interrupt("crash", 7)(toy), seen=[])
    path = tmp_path / "observed" / "main.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    first = lines[0].replace("0.", "1.", 1)
    assert first != lines[0]
    changed = {"a digit": [first, *lines[1:]], "a line less": lines[1:], "a line more": [lines[0], *lines]}
    path.write_text("".join(changed[damage]))
    with pytest.raises(UserError, match="is not what this training wrote"):
        run(toy, tmp_path, seen=[])


def test_a_second_signal_is_not_swallowed():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits "ignore"
    try:
        with listen() as stop, pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
            assert stop.signal == "SIGINT"
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


SCRIPT = """
    import os, runpy, sys, time
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    toy = runpy.run_path(sys.argv[1])
    from jax_promptmtl.core import tree
    from jax_promptmtl.engine.loop import train
    from jax_promptmtl.core.errors import Preempted

    def batches(start):
        for step, batch in enumerate(toy["toy_batches"](start), start):
            print("batch", step, flush=True)
            time.sleep(float(sys.argv[3]))
            yield batch

    try:
        train(toy["toy_problem"](), batches, toy["toy_config"](), sys.argv[2], name="main")
    except Preempted as stopped:
        print(stopped, file=sys.stderr)
        raise SystemExit(75)
"""


@pytest.mark.multiproc
def test_sigterm_and_kill_of_a_process_lose_nothing(whole, toy, tmp_path):
    def start(pause):
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(HERE / "conftest.py"), str(tmp_path), str(pause)]
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def until(process, line):
        for text in process.stdout:
            if text.strip() == line:
                return
        pytest.fail(process.stderr.read())

    process = start(0.1)
    until(process, "batch 4")
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "SIGTERM stopped 'main' after step 5 of 12" in errors

    process = start(0.1)
    until(process, "batch 10")  # resumed at 5; step 9 is saved or being saved
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL

    result = train(toy["problem"](), toy["batches"], toy["config"](), tmp_path, name="main")
    assert tree.checksums(result.params) == tree.checksums(whole["result"].params)


def test_anything_can_be_measured_after_some_steps(toy, tmp_path):
    def measure(params):
        return {"largest": float(np.abs(jax.device_get(params["method"]["prompt"])).max())}

    config = toy["config"](steps=4, evaluate_every=3)
    result = train(toy["problem"](), toy["batches"], config, tmp_path, name="main", hooks=Hooks(measure=measure))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    found = {line["step"]: line["evaluation"] for line in lines if "evaluation" in line}
    assert found.keys() == {3, 4} and result.evaluation == found[4] == measure(result.params)
    assert found[3] != found[4]
