#!/usr/bin/env bash
# One run on a Cloud TPU slice of any number of hosts, as a queued resource.
#
#   NAME=prompts ZONE=us-west4-a TYPE=v5litepod-16 SPOT=1 launch/tpu_vm.sh train --config=configs/mmap.py --workdir=/mnt/runs/mmap
#
# Steps: create, wait, setup, run <options>, logs, status, delete; `train <options>` does them all and starts again on a
# new slice when the old one was taken away. The work directory must be on a file system that all hosts share
# (Filestore, or a bucket mounted with gcsfuse by MOUNT). DRY_RUN=1 prints the commands only.
set -euo pipefail

NAME=${NAME:?a name for the slice} ZONE=${ZONE:?such as us-west4-a}
TYPE=${TYPE:-v5litepod-8} RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite} RETRIES=${RETRIES:-20} POLL=${POLL:-30}
REPOSITORY=${REPOSITORY:-} # a git address that the hosts can clone
MOUNT=${MOUNT:-true}       # a command that mounts the shared file system on a host
place=("--zone=$ZONE")
[ -n "${PROJECT:-}" ] && place+=("--project=$PROJECT")

call() { # call <command...>: print it, and run it unless DRY_RUN
  printf '+' >&2
  printf ' %q' "$@" >&2
  printf '\n' >&2
  [ -n "${DRY_RUN:-}" ] || "$@"
}

everywhere() { call gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker=all --command="$1"; }

create() {
  local spot=()
  [ -n "${SPOT:-}" ] && spot=(--spot)
  call gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" "${place[@]}" \
    --accelerator-type="$TYPE" --runtime-version="$RUNTIME" "${spot[@]}"
}

status() { call gcloud compute tpus queued-resources describe "$NAME" "${place[@]}" --format='value(state.state)'; }

wait_until_active() {
  [ -n "${DRY_RUN:-}" ] && return
  local state
  while true; do
    state=$(status) || state=UNKNOWN
    case $state in
      ACTIVE) return 0 ;;
      FAILED | SUSPENDING | SUSPENDED) echo "launch/tpu_vm.sh: the request is $state" >&2 && return 1 ;;
    esac
    sleep "$POLL"
  done
}

setup() {
  : "${REPOSITORY:?a git address that the hosts can clone}"
  everywhere "$MOUNT && { [ -d jax_promptmtl ] || git clone $(printf %q "$REPOSITORY") jax_promptmtl; } \
&& python3 -m venv venv && venv/bin/pip install --quiet -e 'jax_promptmtl[tpu]'"
}

run() { # run <options>: return the worst exit code that a host reports, or 75 if none reports one
  local arguments output code
  arguments=$(printf ' %q' "$@")
  output=$(mktemp)
  everywhere "cd jax_promptmtl && { ../venv/bin/python -u -m jax_promptmtl.main --multihost=on$arguments 2>&1 \
| tee -a ../jax_promptmtl.log; echo \"exit code of jax_promptmtl: \${PIPESTATUS[0]}\"; }" | tee "$output" || true
  code=$(sed -n 's/.*exit code of jax_promptmtl: \([0-9]*\).*/\1/p' "$output" | sort -n | tail -n 1)
  rm -f "$output"
  return "${code:-75}"
}

logs() { everywhere 'tail -n 50 jax_promptmtl.log'; }

delete() { call gcloud compute tpus queued-resources delete "$NAME" "${place[@]}" --force --quiet; }

train() { # train <options>: a Spot slice that was taken away is gone for good: delete it and ask for another
  local code try
  for ((try = 1; try <= RETRIES; try++)); do
    code=75
    if create && wait_until_active && setup; then
      code=0
      run "$@" || code=$?
    fi
    delete || true
    case $code in
      0) echo "launch/tpu_vm.sh: done" >&2 && return 0 ;;
      1 | 2) echo "launch/tpu_vm.sh: exit code $code; another slice would not help" >&2 && return "$code" ;;
    esac
    echo "launch/tpu_vm.sh: interrupted (exit code $code), try $try of $RETRIES" >&2
    [ -n "${DRY_RUN:-}" ] && return 0
    sleep "$POLL"
  done
  echo "launch/tpu_vm.sh: given up after $RETRIES tries; run the same command again to go on" >&2
  return 75
}

verb=${1:-}
[ "$#" -gt 0 ] && shift
case $verb in
  create | setup | status | logs | delete) "$verb" ;;
  wait) wait_until_active ;;
  run | train) "$verb" "$@" ;;
  *) echo "usage: launch/tpu_vm.sh create|wait|setup|run|logs|status|delete|train [options of jax_promptmtl.main]" >&2 && exit 2 ;;
esac
