#!/usr/bin/env bash
# Run one job in several processes on this host, as a cluster would: launch/local.sh 2 --config=configs/mmap.py ...
#
# For tests and for trying out a cluster's setting; on one host a single process drives all devices just as fast.
# A signal to this script goes to every process. When one fails, the others are ended. PYTHON chooses the interpreter.
set -uo pipefail

if [ "$#" -lt 2 ] || ! [[ $1 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: launch/local.sh <number of processes> --config=<file> [options of jax_promptmtl.main]" >&2
  exit 2
fi
count=$1
shift
python=${PYTHON:-python}
port=${PORT:-$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}
export JAX_COORDINATOR_ADDRESS="127.0.0.1:$port" JAX_PROMPTMTL_PROCESSES="$count"
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY # gRPC would ask them for 127.0.0.1

echo "+ $count x $python -m jax_promptmtl.main $*" >&2
[ -n "${DRY_RUN:-}" ] && exit 0

pids=()
for ((index = 0; index < count; index++)); do
  JAX_PROMPTMTL_PROCESS=$index "$python" -m jax_promptmtl.main "$@" &
  pids+=($!)
done

signal_all() { # signal_all <signal>
  for pid in "${pids[@]}"; do kill -s "$1" "$pid" 2>/dev/null; done
}
trap 'signal_all TERM' TERM
trap 'signal_all INT' INT
trap 'signal_all USR1' USR1

# The worst code of all counts: a failure before "run me again" (75) before success.
code=0 failed=""
while [ "${#pids[@]}" -gt 0 ]; do
  status=0
  wait -n -p ended "${pids[@]}" || status=$?
  [ -z "${ended:-}" ] && continue # a signal came; go on waiting
  for index in "${!pids[@]}"; do
    [ "${pids[$index]}" = "$ended" ] && unset "pids[$index]"
  done
  pids=("${pids[@]}")
  if [ "$status" -ne 0 ] && [ "$status" -ne 75 ] && [ -z "$failed" ]; then
    code=$status failed=$ended
    if [ "${#pids[@]}" -gt 0 ]; then
      sleep 2 # those who know of it end by themselves, with a message of their own
      signal_all KILL
    fi
  elif [ "$status" -eq 75 ] && [ -z "$failed" ]; then
    code=75
  fi
done

case $code in
  0) ;;
  75) echo "launch/local.sh: stopped with a checkpoint; run the same command again." >&2 ;;
  *) echo "launch/local.sh: a process ended with exit code $code, the others were ended; see what it said above." >&2 ;;
esac
exit "$code"
