"""Zero-shot transfer (Table 2): prompts, or their mapper, that were trained on other data of the same task.

The primary is the model of the job's own data set, "original" without prompts; nothing is trained here. Static prompts
are the mean over the training clips of the other run and need no auxiliary. Its mapper makes prompts of every clip; it
needs the auxiliaries of its training.
"""

import json
import pathlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.files import write_whole
from jax_promptmtl.engine import checkpoint
from jax_promptmtl.experiments.video.job import Job, Row, row_problem
from jax_promptmtl.experiments.video.measuring import PROMPTS, Scores, evaluators, static_scores
from jax_promptmtl.experiments.video.rows import frozen
from jax_promptmtl.reporting.video_run import console_scores

ROW, SAVED = "dlm", ".safetensors"


def run(job: Job, source: pathlib.Path) -> None:
    """Measure the primary without and with the prompts of another run, print a table, and write results.json.

    Args:
      job: of the data to measure on; auxiliaries are read where the mapper is to make the prompts.
      source: work directory of a video run, whose row `dlm` is taken, or its prompts_<row>.safetensors.

    Raises:
      UserError: no such run, or one that does not fit the primary or the auxiliaries.
    """
    saved = source if source.suffix == SAVED else source / f"{PROMPTS}{ROW}{SAVED}"
    found = {"static": static_scores(job, saved.with_suffix(""))}
    if job.footage.aux:
        found["dynamic"] = mapped_scores(job, saved.parent, saved.stem.removeprefix(PROMPTS))
    rows = {
        "original": described(job, "original", {"dynamic": scores_of(job, frozen(job))}),
        "transferred": described(job, f"prompts of {saved.parent.name}", found) | {"prompts": str(saved)},
    }
    print(console_scores(rows, job.spec.task.metric), flush=True)
    write_whole(job.workdir / "results.json", json.dumps(rows, indent=2) + "\n")


def described(job: Job, title: str, scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Return a row of results.json."""
    return {"title": title, "trainable": 0, "metric": job.spec.task.metric, "scores": scores}


def scores_of(job: Job, row: Row) -> Scores:
    """Return what a row scores as it is."""
    problem = row_problem(job, row)
    scores: Scores = evaluators(job, row, problem)(problem.params, job.parts[1:])[0]
    return scores


def mapped_scores(job: Job, home: pathlib.Path, name: str) -> Scores:
    """Return what the primary scores with the mapper of another run.

    Args:
      job: see `run`.
      home: work directory of the other run.
      name: of its row.

    Raises:
      UserError: auxiliaries that are not those of its training.
    """
    params, meta = checkpoint.read(home / "checkpoints" / name)
    about = meta["about"]
    if set(about["aux"]) != set(job.footage.aux):
        raise UserError(
            f"The mapper of {str(home)!r} looks through {', '.join(sorted(about['aux']))}, and this config has "
            f"{', '.join(sorted(job.footage.aux))}; give the same auxiliaries, or none for static prompts."
        )
    known, here = about.get("aux_sha256", {}), job.footage.about().get("aux_sha256", {})
    if odd := [aux for aux in known if known[aux] != here.get(aux, known[aux])]:
        raise UserError(f"The auxiliary {odd[0]!r} is not the model that the mapper was trained with; give that.")
    row = replace(job.row(meta["config"]["method"], {aux: aux for aux in about["aux"]}), initial=params["method"])
    wanted, given = tree.count(row_problem(job, replace(row, initial=None)).params), tree.count(params["method"])
    if wanted != given:
        raise UserError(f"The mapper of {str(home)!r} has {given:,} parameters, not {wanted:,}; its models differ.")
    return scores_of(job, row)
