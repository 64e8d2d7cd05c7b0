"""The mirror to W&B: nothing without a project, one sentence without the package, all scalars offline with it."""

import sys
import types

import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.engine import track
from jax_promptmtl.engine.writer import Writer


def test_nothing_is_done_without_a_project(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with track.mirrored("", tmp_path / "work", {}):
        pass
    assert not (tmp_path / "work").exists()
    with pytest.raises(UserError, match="--wandb needs the package"), track.mirrored("all", tmp_path, {}):
        pass


class Run:
    """Stands for an open W&B run; keeps what is logged."""

    def __init__(self):
        self.logged = []

    def log(self, values):
        self.logged.append(values)


def write(folder):
    """Write scalars of two stages."""
    for stage in ("global", "train"):
        writer = Writer(folder, stage, step=0, evaluated=False)
        for step in (1, 2):
            writer.scalars(step, {"loss": step / 4}, images_per_second=9.0)
        writer.evaluation(2, {"accuracy": 0.5})
        writer.close()


def test_an_open_run_gets_what_tensorboard_gets(tmp_path, monkeypatch):
    run = Run()
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(run=run))
    write(tmp_path)
    assert run.logged[1] == {"global/step": 2, "global/loss": 0.5, "global/images_per_second": 9.0}
    assert run.logged[-1] == {"train/step": 2, "train/evaluation/accuracy": 0.5} and len(run.logged) == 6
    sys.modules["wandb"].run = None
    write(tmp_path)
    assert len(run.logged) == 6


@pytest.mark.slow
def test_a_run_is_kept_offline_and_goes_on_under_its_name(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    numbers = set()
    for _ in range(2):
        with track.mirrored("all", tmp_path / "work", {"seed": 3}):
            assert wandb.run.config["seed"] == 3 and wandb.run.project == "all"
            numbers.add(wandb.run.id)
            write(tmp_path / "work")
        assert wandb.run is None
    assert len(numbers) == 1
    files = sorted((tmp_path / "work" / "wandb").glob("offline-run-*/*.wandb"))
    kept = files[0].read_bytes()
    assert all(word in kept for word in (b"global/loss", b"train/loss", b"train/evaluation/accuracy", b"train/step"))


@pytest.mark.slow
def test_a_mistake_stays_one_sentence(tmp_path, monkeypatch, capfd):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(UserError, match="wrong"), track.mirrored("all", tmp_path / "work", {}):
        raise UserError("wrong")
    assert "Traceback" not in capfd.readouterr().err
