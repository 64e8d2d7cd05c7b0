"""The cluster scripts against fake `srun`, `scontrol` and `gcloud`: what they would call, and when they try again."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).parent.parent.parent
SCRIPTS = sorted(path.name for kind in ("*.sh", "*.sbatch") for path in (ROOT / "launch").glob(kind))
FAKE = """#!/usr/bin/env bash
printf '%s' "$(basename "$0")" >>"$LOG"
printf ' %s' "$@" >>"$LOG"
printf '\\n' >>"$LOG"
"""
SRUN = FAKE + 'exit "$CODE"\n'
GCLOUD = (
    FAKE
    + """
case "$*" in
  *describe*) echo "$STATE" ;;
  *jax_promptmtl.main*)
    turn=$(grep -c jax_promptmtl.main "$LOG")
    read -r -a codes <<<"$CODES"
    code=${codes[turn - 1]}
    [ "$code" = lost ] && exit 255
    echo "host 0: exit code of jax_promptmtl: 0"
    echo "host 1: exit code of jax_promptmtl: $code"
    ;;
esac
"""
)


@pytest.fixture
def fakes(tmp_path):
    for name, text in {"srun": SRUN, "scontrol": FAKE, "gcloud": GCLOUD}.items():
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o755)
    return tmp_path


def call(fakes, script, *arguments, **environment):
    """Run a script with the fakes; return its exit code, the calls, and what it said."""
    log = fakes / "log"
    log.write_text("")
    variables = (
        os.environ | {"PATH": f"{fakes}:{os.environ['PATH']}", "LOG": str(log), "PYTHON": "python"} | environment
    )
    command = ["bash", f"launch/{script}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=variables, timeout=60)
    return done.returncode, log.read_text().splitlines(), done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_has_nothing_to_say(script):
    checker = shutil.which("shellcheck", path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    assert checker, "shellcheck comes with the `test` extra; pip install -e '.[test]'"
    done = subprocess.run([checker, f"launch/{script}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("code, requeued", [(0, False), (2, False), (1, False), (75, True), (143, True), (137, False)])
def test_slurm_requeues_what_was_stopped_and_nothing_else(fakes, code, requeued):
    found, calls, said = call(fakes, "slurm.sbatch", "--config=c.py", "--workdir=a b", CODE=str(code), SLURM_JOB_ID="7")
    assert found == code
    assert calls[0] == "srun --kill-on-bad-exit=1 python -u -m jax_promptmtl.main --config=c.py --workdir=a b"
    assert calls[1:] == (["scontrol requeue 7"] if requeued else [])
    assert "+ srun" in said


ARRAY = {"PRESETS": "mmap coop", "SEEDS": "0 1 2", "SLURM_ARRAY_JOB_ID": "9", "SLURM_JOB_ID": "12", "WORK": "w"}


def test_the_array_covers_the_grid_once_and_requeues_one_task(fakes):
    seen = set()
    for index in range(6):
        task = ARRAY | {"SLURM_ARRAY_TASK_ID": str(index), "CODE": "75"}
        code, calls, _ = call(fakes, "slurm_array.sbatch", "--config.suite.shots=6", **task)
        assert (code, calls[1]) == (75, f"scontrol requeue 9_{index}")
        words = calls[0].split()
        assert "--multihost=off" in words and words[-1] == "--config.suite.shots=6"
        seen.add(tuple(word.split("=")[1] for word in words if "=" in word)[:4])
    combinations = ((preset, seed) for preset in ("mmap", "coop") for seed in "012")
    assert seen == {(f"configs/clip.py:{preset}", seed, seed, f"w/{preset}_{seed}") for preset, seed in combinations}


def test_an_array_that_is_too_long_is_an_error(fakes):
    code, calls, said = call(fakes, "slurm_array.sbatch", **ARRAY, SLURM_ARRAY_TASK_ID="6", CODE="0")
    assert (code, calls) == (2, []) and "the grid has 6 runs; give --array=0-5" in said


TPU = {"NAME": "n", "ZONE": "z", "STATE": "ACTIVE", "POLL": "0", "REPOSITORY": "https://example.org/r.git", "SPOT": "1"}


def verbs(calls):
    """Return what the calls of gcloud do, in short."""
    kinds = {"create": " create ", "describe": " describe ", "setup": "git clone", "run": "main", "delete": " delete "}
    return [next(kind for kind, word in kinds.items() if word in line) for line in calls]


ONCE = ["create", "describe", "setup", "run", "delete"]


@pytest.mark.parametrize(
    "codes, code, rounds", [("0", 0, 1), ("75 0", 0, 2), ("lost 137 0", 0, 3), ("2", 2, 1), ("lost 1", 1, 2)]
)
def test_a_tpu_run_is_repeated_on_a_new_slice_until_it_is_done_or_hopeless(fakes, codes, code, rounds):
    found, calls, said = call(fakes, "tpu_vm.sh", "train", "--config=c.py", "--workdir=/mnt/a b", CODES=codes, **TPU)
    assert found == code, said
    assert verbs(calls) == ONCE * rounds
    assert "--node-id=n --zone=z" in calls[0] and "--spot" in calls[0] and "--worker=all" in calls[3]
    assert "--multihost=on --config=c.py --workdir=/mnt/a\\ b" in calls[3]


def test_a_tpu_request_that_fails_is_deleted_and_given_up_in_the_end(fakes):
    code, calls, said = call(fakes, "tpu_vm.sh", "train", CODES="", RETRIES="2", **(TPU | {"STATE": "FAILED"}))
    assert code == 75 and verbs(calls) == ["create", "describe", "delete"] * 2
    assert "the request is FAILED" in said and "given up after 2 tries" in said


def test_the_tpu_script_calls_nothing_in_a_dry_run(fakes):
    code, calls, said = call(fakes, "tpu_vm.sh", "train", "--config=c.py", DRY_RUN="1", **TPU)
    assert (code, calls) == (0, [])
    assert "+ gcloud compute tpus queued-resources create n" in said


@pytest.mark.parametrize("missing", ["NAME", "ZONE"])
def test_the_tpu_script_names_what_is_missing(fakes, missing):
    variables = {key: value for key, value in TPU.items() if key != missing}
    code, calls, said = call(fakes, "tpu_vm.sh", "create", **variables)
    assert code != 0 and calls == [] and missing in said


def test_the_jobset_restarts_what_was_stopped_and_not_what_is_wrong():
    spec = yaml.safe_load((ROOT / "launch" / "gke_jobset.yaml").read_text())
    assert (spec["apiVersion"], spec["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (replicated,) = spec["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert job["parallelism"] == job["completions"] and job["backoffLimit"] == 0
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [2] and rule["action"] == "FailJob"
    assert spec["spec"]["failurePolicy"]["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert rule["onExitCodes"]["containerName"] == container["name"] and pod["restartPolicy"] == "Never"
    assert "--multihost=on" in container["args"]
    config = next(word.partition("=")[2] for word in container["args"] if word.startswith("--config="))
    assert (ROOT / config).exists()
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_the_image_copies_what_exists_and_starts_python_itself():
    lines = (ROOT / "launch" / "Dockerfile").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY "):
            assert all((ROOT / word).exists() for word in line.split()[1:-1]), line
    assert 'ENTRYPOINT ["python", "-u", "-m", "jax_promptmtl.main"]' in lines


def test_the_readme_names_every_file_and_no_other():
    text = (ROOT / "launch" / "README.md").read_text()
    files = {path.name for path in (ROOT / "launch").iterdir()} - {"README.md"}
    assert all(f"`{name}`" in text for name in files)
