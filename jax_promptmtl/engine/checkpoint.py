"""Checkpoints: the trainable state, and JSON metadata (`meta`) that describes and verifies it.

Layout: directory/<step>/{params, opt, meta, metrics}. Frozen weights are never saved; `meta["about"]` names them.
"""

import contextlib
import json
import logging
import math
import os
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.versions import stamp
from jax_promptmtl.engine import processes
from jax_promptmtl.engine.parallel import whole
from jax_promptmtl.engine.step import State

PyTree = Any
SCHEMA = 1
# These may change on resume: they affect what is logged or saved, not what is learned.
FREE = {"log_every", "evaluate_every", "checkpoint_every", "parallel"}
FREE |= {"tokenizer", "dtype"}  # of the backbone; missing from older checkpoints
log = logging.getLogger(__name__)


class Damaged(Exception):
    """A checkpoint fails its checksums or cannot be read."""


class NotSaved(UserError):
    """A checkpoint could not be written; earlier ones are intact."""


def plain(value: Any) -> Any:
    """Return the value after a round trip through JSON: tuples and arrays become lists, ConfigDicts dicts.

    >>> plain({"groups": (np.int32(1), np.arange(2))})
    {'groups': [1, [0, 1]]}
    """
    return json.loads(
        json.dumps(value, default=lambda v: v.to_dict() if hasattr(v, "to_dict") else np.asarray(v).tolist())
    )


def checksums(**trees: Any) -> dict[str, int]:
    """Return {name/path: CRC-32} over the leaves of named trees, such as params and opt."""
    leaves = jax.tree_util.tree_leaves_with_path(trees)
    return tree.checksums({jax.tree_util.keystr(path): leaf for path, leaf in leaves})


def verify(meta: Mapping[str, Any], **trees: Any) -> None:
    """Raise `Damaged` unless leaves and checksums of the trees match their `meta`."""
    found = checksums(**trees)
    parts = tuple(f"['{name}']" for name in trees)
    saved = {path: crc for path, crc in meta["crc32"].items() if path.startswith(parts)}
    wrong = sorted(path for path in found.keys() | saved.keys() if found.get(path) != saved.get(path))
    if wrong:
        raise Damaged(f"checksum mismatch in {wrong[0]}")


def seal(meta: Mapping[str, Any]) -> int:
    """Return the CRC-32 of the JSON itself.

    >>> seal({"step": 1}) == seal({"step": 2})
    False
    """
    return zlib.crc32(json.dumps(meta, sort_keys=True).encode())


def first_difference(expected: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """Return (path, expected value, given value) of the first leaf that differs; keys in `FREE` do not count.

    >>> first_difference({"method": {"name": "a"}, "log_every": 1}, {"method": {"name": "b"}, "log_every": 2})
    ('method/name', 'a', 'b')
    """
    want, have = tree.flatten(expected), tree.flatten(given)
    for path in sorted(want.keys() | have.keys()):
        if path.split("/")[-1] not in FREE and want.get(path) != have.get(path):
            return path, want.get(path), have.get(path)
    return None


def require_same(folder: pathlib.Path, part: str, saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another run: one that differs in `part`, which is "config" or "about"."""
    if difference := first_difference(saved, given):
        path, old, new = difference
        raise UserError(
            f"The checkpoint {folder} was written with {part} {path} = {old!r}, and this run has {new!r}; set it back "
            "or use another workdir."
        )


def require_same_config(directory: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
    """Refuse a directory whose newest checkpoint has another config, before anything is computed."""
    for folder in sorted(path for path in pathlib.Path(directory).glob("*") if path.name.isdigit())[-1:]:
        with contextlib.suppress(OSError, ValueError, KeyError, Damaged):  # `restore` handles damage
            require_same(folder, "config", read_meta(folder)["config"], plain(config))


def read_meta(folder: pathlib.Path) -> dict[str, Any]:
    """Load the metadata of a checkpoint; raises `Damaged` where its own checksum is wrong."""
    meta = json.loads((folder / "meta" / "metadata").read_text("utf-8"))
    if meta.pop("seal", None) != seal(meta):
        raise Damaged("checksum mismatch in meta")
    result: dict[str, Any] = meta
    return result


def other_versions(meta: Mapping[str, Any]) -> str:
    """Describe which versions differ between a checkpoint and this process; empty for checkpoints without versions.

    >>> other_versions({"versions": stamp() | {"jax": "0.0"}}).startswith("jax 0.0, now ")
    True
    """
    saved, now = meta.get("versions", {}), stamp()
    return "; ".join(f"{name} {old}, now {now.get(name)}" for name, old in saved.items() if now.get(name) != old)


def read(directory: str | os.PathLike[str]) -> tuple[PyTree, dict[str, Any]]:
    """Load the newest intact parameters (numpy, `None` where frozen) and their `meta`, read-only.

    Raises:
      UserError: there is no checkpoint, none is intact, or its schema is another version's.
    """
    directory = pathlib.Path(directory).absolute()
    steps = sorted((path for path in directory.glob("*") if path.name.isdigit()), reverse=True)
    if not steps:
        raise UserError(f"There is no checkpoint in {str(directory)!r}; give the work directory of a training.")
    for folder in steps:
        try:
            meta = read_meta(folder)
            if meta["schema"] != SCHEMA:
                raise UserError(f"The checkpoint {folder} has schema {meta['schema']}; this version reads {SCHEMA}.")
            params = ocp.StandardCheckpointer().restore(folder / "params")
            verify(meta, params=params)
        except UserError:
            raise
        except Exception as error:  # see `Checkpoints.restore`
            log.warning("Checkpoint %s is damaged (%s); trying the one before.", folder, _line(error))
        else:
            return params, meta
    raise UserError(f"All checkpoints in {str(directory)!r} are damaged; restore the directory from a copy.")


class _Manager(ocp.CheckpointManager):  # type: ignore[misc] # Orbax ships no types
    """Orbax's CheckpointManager without its signal handling.

    Orbax would query JAX's preemption service with its own step. The service tracks one counter per process, so that
    after a save it could agree on a step that `preemption.Stop` has already passed.
    """

    def reached_preemption(self, step: int) -> bool:
        del step
        return False


class Checkpoints:
    """The checkpoints of one run: the newest two, and the best one by the metric `best`."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        config: Mapping[str, Any],
        about: Mapping[str, Any],
        best: str = "accuracy",
        keep: int = 2,
    ):
        """Open or create a directory; `config` and `about` are stored with every checkpoint."""
        self.directory = pathlib.Path(directory).absolute()
        self.identity = {"config": plain(config), "about": plain(about)}
        policy = ocp.checkpoint_managers

        def rank(metrics: Mapping[str, float]) -> float:
            return metrics.get(best, -math.inf)  # a checkpoint without an evaluation is never the best

        options = ocp.CheckpointManagerOptions(
            step_format_fixed_length=8,
            cleanup_tmp_directories=True,
            best_fn=rank,
            best_mode="max",
            # Not max_to_keep: with best_fn it would delete the newest checkpoint unless it is among the best.
            preservation_policy=policy.AnyPreservationPolicy(
                [
                    policy.LatestN(keep),
                    policy.BestN(get_metric_fn=rank, n=1, keep_checkpoints_without_metrics=False),
                ]
            ),
        )
        self._orbax = _Manager(self.directory, options=options)

    def save(self, state: State, *, metrics: Mapping[str, float] | None = None, progress: Any = None) -> None:
        """Start an asynchronous save.

        Args:
          state: on any device; it may be donated as soon as this returns. A checkpoint of the same step is replaced.
          metrics: evaluation metrics of this state, if it was evaluated.
          progress: JSON handed back to the loop on restore.

        Raises:
          NotSaved: this save, or the one before it, failed.
          UserError: a parameter is not finite; such a state is never saved.
        """
        with self._loud():
            self._orbax.check_for_errors()
        state = jax.device_get(whole(state))
        step = int(state.step)
        for path, leaf in tree.flatten(state.params).items():
            if leaf is not None and not np.isfinite(leaf).all():
                raise UserError(f"The parameter {path} is not finite after step {step}; {self.newest()}.")
        meta = {"schema": SCHEMA, "step": step, **self.identity, "crc32": checksums(params=state.params, opt=state.opt)}
        meta |= {"metrics": plain(metrics), "progress": plain(progress), "versions": stamp()}
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(state.params),
            opt=ocp.args.StandardSave(state.opt),
            meta=ocp.args.JsonSave(meta | {"seal": seal(meta)}),
        )
        with self._loud():
            if step in self._orbax.all_steps():
                self._orbax.delete(step)
            self._orbax.save(step, args=items, metrics=plain(metrics or {}), force=True)

    def restore(self, template: State, *, best: bool = False) -> tuple[State, dict[str, Any]] | None:
        """Return the newest intact state and its `meta`, or `None` if nothing was ever saved.

        A damaged checkpoint is renamed `damaged.<step>` with a warning, and the previous one is tried.

        Args:
          template: a state with the expected structure, shapes and dtypes, such as the initial one.
          best: try the one with the best metric first.

        Raises:
          UserError: all are damaged, or the checkpoint belongs to another backbone or config.
        """
        damaged = []
        for step in self._candidates(best):
            try:
                restored = self._read(step, template)
            except UserError:
                raise
            except Exception as error:  # damage shows as anything from KeyError to a TensorStore error
                log.warning("Checkpoint %s is damaged (%s); trying the one before.", self._path(step), _line(error))
                damaged.append(step)
            else:
                self._set_aside(damaged)
                if changed := other_versions(restored[1]):
                    log.warning("Checkpoint %s was written with other versions: %s.", self._path(step), changed)
                return restored
        if damaged:
            raise UserError(
                f"All checkpoints in {self.directory} are damaged (steps {', '.join(map(str, damaged))}); "
                "restore the directory from a copy, or delete it to start again at step 0."
            )
        return None

    def close(self) -> None:
        """Wait for pending saves; raises `NotSaved` if one failed."""
        with self._loud():
            self._orbax.wait_until_finished()
            self._orbax.check_for_errors()
            self._orbax.close()

    def newest(self) -> str:
        """Describe the newest checkpoint for error messages, after waiting for a pending save."""
        with contextlib.suppress(Exception):  # the failure is reported by `_loud`
            self._orbax.wait_until_finished()
        steps = [int(path.name) for path in self.directory.glob("*") if path.name.isdigit()]
        return f"the newest checkpoint is {self._path(max(steps))}" if steps else "no checkpoint was saved before"

    @contextlib.contextmanager
    def _loud(self) -> Iterator[None]:
        """Turn whatever Orbax raises on a failed save into a one-sentence `NotSaved`."""
        try:
            yield
        except Exception as error:
            raise NotSaved(
                f"Cannot save a checkpoint in {self.directory} ({_line(error)}); {self.newest()}; make room there and "
                "run the same command again."
            ) from error

    def _candidates(self, best: bool) -> Iterator[int]:
        steps = sorted(self._orbax.all_steps(), reverse=True)
        first = self._orbax.best_step() if best else None
        yield from [step for step in steps if step == first] + [step for step in steps if step != first]

    def _read(self, step: int, template: State) -> tuple[State, dict[str, Any]]:
        meta = read_meta(self._path(step))
        self._verify_identity(step, meta)
        host = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
        items = ocp.args.Composite(params=ocp.args.StandardRestore(host.params), opt=ocp.args.StandardRestore(host.opt))
        read = self._orbax.restore(step, args=items)
        state = State(np.int32(meta["step"]), read["params"], read["opt"])
        verify(meta, params=state.params, opt=state.opt)
        return state, meta

    def _verify_identity(self, step: int, meta: Mapping[str, Any]) -> None:
        where = f"The checkpoint {self._path(step)}"
        if meta["schema"] != SCHEMA:
            raise UserError(f"{where} has schema {meta['schema']}; this version reads {SCHEMA}: use a new workdir.")
        saved, current = (about.get("backbone", {}) for about in (meta["about"], self.identity["about"]))
        if saved.get("sha256") != current.get("sha256"):
            raise UserError(
                f"{where} belongs to the backbone {saved.get('name')!r} (sha256 {saved.get('sha256')}), not to "
                f"{current.get('name')!r} (sha256 {current.get('sha256')}); give that backbone or another workdir."
            )
        for part in ("config", "about"):
            require_same(self._path(step), part, meta[part], self.identity[part])

    def _path(self, step: int) -> pathlib.Path:
        return self.directory / f"{step:08d}"

    def _set_aside(self, steps: list[int]) -> None:
        for step in steps if jax.process_index() == 0 else ():
            target = self.directory / f"damaged.{step:08d}"
            while target.exists():
                target = target.with_name(target.name + "x")
            self._path(step).rename(target)
        if steps:
            with processes.in_turn("set aside"):
                self._orbax.reload()


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
