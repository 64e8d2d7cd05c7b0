"""The mirror to W&B: nothing without a project, one sentence without the package, all scalars offline with it."""

import pathlib
import sys

import pytest

from jax_promptmtl import track
from jax_promptmtl.engine.writer import Writer
from jax_promptmtl.errors import UserError


def test_nothing_is_done_without_a_project(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with track.mirrored("", tmp_path / "work", {}):
        pass
    assert not (tmp_path / "work").exists()
    with pytest.raises(UserError, match="--wandb needs the package"), track.mirrored("all", tmp_path, {}):
        pass


@pytest.mark.slow
def test_scalars_of_all_stages_are_kept_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal import datastore

    monkeypatch.setenv("WANDB_MODE", "offline")
    with track.mirrored("all", tmp_path / "work", {"seed": 3}):
        assert wandb.run.config["seed"] == 3
        for stage in ("global", "train"):
            writer = Writer(tmp_path / "work", stage, step=0, evaluated=False)
            for step in (1, 2):
                writer.scalars(step, {"loss": step / 4})
            writer.close()
    assert wandb.run is None
    (path,) = pathlib.Path(tmp_path / "work" / "wandb").glob("offline-run-*/*.wandb")
    store, seen = datastore.DataStore(), {}
    store.open_for_scan(str(path))
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        for item in record.history.item:
            seen.setdefault(item.key or "/".join(item.nested_key), []).append(item.value_json)
    losses = {key: values for key, values in seen.items() if key.endswith("loss")}
    assert len(losses) == 2 and all(values == ["0.25", "0.5"] for values in losses.values()), seen
