import json
import logging
import pathlib
import resource
import shutil
import signal

import jax
import ml_collections
import numpy as np
import pytest
from jax.experimental import multihost_utils

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.engine import optim, step
from jax_promptmtl.engine.checkpoint import Checkpoints, NotSaved, checksums


def make_state(toy, number, name="muon"):
    problem = toy["problem"]()
    tx = optim.make(
        toy["config"](optimizer={"name": name})["optimizer"], mask=problem.mask, steps_per_epoch=1, total_steps=9
    )
    state = step.initial(problem, tx)
    return state.replace(step=state.step + number, params=jax.tree.map(lambda leaf: leaf + number, state.params))


def open_(directory, toy, **changes):
    return Checkpoints(directory, config=toy["config"](**changes), about=toy["problem"]().about)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A directory for the checkpoints of steps 1..3, written once."""
    return tmp_path_factory.mktemp("original") / "run"


@pytest.fixture
def saved(original, tmp_path, toy):
    """A copy of them: 3 is the newest, 1 the best."""
    if not original.exists():
        checkpoints = open_(original, toy)
        for number, accuracy in ((1, 0.9), (2, 0.1), (3, None)):
            metrics = None if accuracy is None else {"accuracy": accuracy}
            checkpoints.save(make_state(toy, number), metrics=metrics, progress={"window": [number]})
        checkpoints.close()
    return pathlib.Path(shutil.copytree(original, tmp_path / "run"))


def sums(state):
    """Return the checksums of what a checkpoint holds of a state."""
    return checksums(params=state.params, opt=state.opt)


def test_a_save_asks_no_question_of_the_preemption_service(tmp_path, toy, monkeypatch):
    asked = []
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda number: bool(asked.append(number)))
    checkpoints = open_(tmp_path / "run", toy)
    checkpoints.save(make_state(toy, 1))
    checkpoints.close()
    assert not asked


def test_round_trip_is_bitwise_with_holes_and_all(saved, toy):
    state, meta = open_(saved, toy).restore(make_state(toy, 0))
    wanted = make_state(toy, 3)
    assert jax.tree.structure(state) == jax.tree.structure(wanted)
    assert state.params["backbone"]["blocks_0"]["bias"] is None
    assert sums(state) == sums(wanted)
    assert state.step == 3
    assert (meta["progress"], meta["metrics"]) == ({"window": [3]}, None)
    assert meta["about"]["backbone"]["name"] == "toy"
    assert meta["config"] == toy["config"]()


def test_a_config_dict_is_the_same_as_a_dict(saved, toy):
    config = ml_collections.ConfigDict(toy["config"]())
    restored = Checkpoints(saved, config=config, about=toy["problem"]().about).restore(make_state(toy, 0))
    assert restored[0].step == 3


def test_the_newest_two_and_the_best_are_kept(original, saved, toy):
    checkpoints = open_(saved, toy)
    checkpoints.save(make_state(toy, 4))
    checkpoints.close()
    assert sorted(path.name for path in saved.iterdir()) == ["00000001", "00000003", "00000004"]
    state, _ = open_(saved, toy).restore(make_state(toy, 0), best=True)
    assert state.step == 1


def test_the_same_step_can_be_saved_again(saved, toy):
    checkpoints = open_(saved, toy)
    checkpoints.save(make_state(toy, 3), metrics={"accuracy": 0.95})
    checkpoints.close()
    state, meta = open_(saved, toy).restore(make_state(toy, 0), best=True)
    assert (state.step, meta["metrics"]) == (3, {"accuracy": 0.95})


def test_an_empty_directory_restores_nothing(tmp_path, toy):
    assert open_(tmp_path / "new", toy).restore(make_state(toy, 0)) is None


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)


def empty(path):
    shutil.rmtree(path)
    path.mkdir()


def swap(path, other):
    """Orbax reads this without a word; only the checksum can tell."""
    shutil.rmtree(path)
    shutil.copytree(other, path)


def array_file(directory):
    """The largest file of the step's parameters: the numbers themselves."""
    return max((path for path in directory.glob("params/d/*")), key=lambda path: path.stat().st_size)


DAMAGE = {
    "array truncated": lambda d: truncate(array_file(d)),
    "array bit flipped": lambda d: flip(array_file(d)),
    "array deleted": lambda d: array_file(d).unlink(),
    "array of another step": lambda d: swap(d / "params", d.with_name("00000002") / "params"),
    "manifest deleted": lambda d: (d / "params/manifest.ocdbt").unlink(),
    "optimiser deleted": lambda d: shutil.rmtree(d / "opt"),
    "meta truncated": lambda d: truncate(d / "meta/metadata"),
    "meta bit flipped": lambda d: flip(d / "meta/metadata"),
    "meta number changed": lambda d: (d / "meta/metadata").write_text(
        (d / "meta/metadata").read_text().replace('"steps": 12', '"steps": 13')
    ),
    "tree metadata truncated": lambda d: truncate(d / "params/_METADATA"),
    "emptied": empty,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(saved, toy, damage, caplog):
    DAMAGE[damage](saved / "00000003")
    checkpoints = open_(saved, toy)
    with caplog.at_level(logging.WARNING):
        state, meta = checkpoints.restore(make_state(toy, 0))
    assert sums(state) == sums(make_state(toy, 2))
    assert meta["step"] == 2
    assert "00000003 is damaged" in caplog.text
    checkpoints.save(make_state(toy, 3))  # the run goes on and reaches that step again
    checkpoints.close()
    assert sorted(path.name for path in saved.glob("0*")) == ["00000001", "00000002", "00000003"]
    assert (saved / "damaged.00000003").is_dir()
    assert open_(saved, toy).restore(make_state(toy, 0))[0].step == 3


def test_no_intact_checkpoint_is_an_error_and_never_a_fresh_start(saved, toy):
    for directory in saved.glob("0*"):
        empty(directory)
    with pytest.raises(UserError, match=r"All checkpoints in .* are damaged \(steps 3, 2, 1\)"):
        open_(saved, toy).restore(make_state(toy, 0))
    assert len(list(saved.glob("0*"))) == 3


def test_an_unfinished_save_is_invisible(saved, toy):
    (saved / "00000009.orbax-checkpoint-tmp").mkdir()
    assert open_(saved, toy).restore(make_state(toy, 0))[0].step == 3


def test_a_checkpoint_of_another_backbone_is_refused(saved, toy):
    about = toy["problem"](backbone="f" * 64).about
    with pytest.raises(UserError, match=r"belongs to the backbone 'toy' \(sha256 0{64}\), not to"):
        Checkpoints(saved, config=toy["config"](), about=about).restore(make_state(toy, 0))


def test_a_checkpoint_of_another_config_is_refused(saved, toy):
    with pytest.raises(UserError, match=r"config optimizer/learning_rate = 0\.1, and this run has 0\.2"):
        open_(saved, toy, optimizer={"learning_rate": 0.2}).restore(make_state(toy, 0))


def test_a_checkpoint_of_other_classes_is_refused(saved, toy):
    about = {**toy["problem"]().about, "classes": [["x", "y"]] * 3}
    with pytest.raises(UserError, match="about classes"):
        Checkpoints(saved, config=toy["config"](), about=about).restore(make_state(toy, 0))


def test_how_often_to_log_may_change(saved, toy):
    assert open_(saved, toy, log_every=1, checkpoint_every=1, parallel="pmap").restore(make_state(toy, 0))[0].step == 3


# Orbax wakes the event loop of a save that failed after it closed it
@pytest.mark.filterwarnings("ignore:Exception ignored in. None:pytest.PytestUnraisableExceptionWarning")
def test_a_save_that_fails_is_loud_and_leaves_the_last_one_intact(saved, toy):
    checkpoints = open_(saved, toy)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))  # as a full disk: no file may exceed 64 bytes
    try:
        with pytest.raises(NotSaved, match=r"Cannot save .*newest checkpoint is .*00000003;") as failed:
            checkpoints.save(make_state(toy, 4))
            checkpoints.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(failed.value)
    assert open_(saved, toy).restore(make_state(toy, 0))[0].step == 3


def test_parameters_that_are_not_finite_are_never_saved(saved, toy):
    state = make_state(toy, 4)
    state.params["method"]["prompt"] = state.params["method"]["prompt"].at[0, 0, 0].set(np.inf)
    checkpoints = open_(saved, toy)
    with pytest.raises(UserError, match=r"method/prompt is not finite after step 4; .*00000003\."):
        checkpoints.save(state)
    checkpoints.close()
    assert open_(saved, toy).restore(make_state(toy, 0))[0].step == 3


def test_a_resume_by_other_versions_is_said(saved, toy, caplog, monkeypatch):
    checkpoints = open_(saved, toy)
    _, meta = checkpoints.restore(make_state(toy, 0))
    assert meta["versions"]["jax"] == jax.__version__ and not caplog.messages
    monkeypatch.setattr("jax_promptmtl.engine.checkpoint.stamp", lambda: meta["versions"] | {"jax": "99"})
    checkpoints.restore(make_state(toy, 0))
    assert f"other versions: jax {jax.__version__}, now 99" in caplog.text


def test_the_golden_checkpoint_of_schema_1_keeps_loading(tmp_path, toy):
    """Written once by schema 1 and never again; a change that breaks this test breaks the users' checkpoints."""
    directory = pathlib.Path(shutil.copytree(pathlib.Path(__file__).with_name("golden"), tmp_path / "run"))
    meta = json.loads((directory / "00000005" / "meta" / "metadata").read_text())
    problem = toy["problem"]()
    plan = {"steps_per_epoch": 1, "total_steps": 9}
    template = step.initial(problem, optim.make(meta["config"]["optimizer"], mask=problem.mask, **plan))
    state, restored = Checkpoints(directory, config=meta["config"], about=meta["about"]).restore(template)
    assert jax.tree.structure(state) == jax.tree.structure(template)
    for path in (("method", "prompt"), ("backbone", "blocks_0", "kernel")):
        start, leaf = problem.params, state.params
        for key in path:
            start, leaf = start[key], leaf[key]
        np.testing.assert_array_equal(leaf, start + np.float32(5))
    assert (state.step, restored["metrics"], restored["schema"]) == (5, {"accuracy": 0.5}, 1)
