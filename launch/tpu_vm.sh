#!/usr/bin/env bash
# Runs an experiment on a Cloud TPU slice, from this machine, with gcloud.
#   ZONE=us-east5-b TYPE=v6e-16 BUCKET=mine \
#     bash launch/tpu_vm.sh [--dry_run] experiments.pretrain --flagfile=...
#   ZONE=us-east5-b bash launch/tpu_vm.sh [--dry_run] status | logs | delete
# It makes the slice (a queued resource; QUEUED=0: at once), copies the repository, installs it on
# all workers, starts the experiment there under supervise.sh and streams the log of worker 0.
# Stop it here and it goes on there; the same command looks again. While it looks, a slice that is
# preempted is made anew and the run goes on from BUCKET, mounted as runs/ (without it, all is lost).
# Settings: NAME (nanollm), ZONE, TYPE, BUCKET, PROJECT, VERSION of the image, SPOT=1, QUEUED=0.
set -euo pipefail
dry= name=${NAME:-nanollm} pause=${PAUSE:-20}
[ "${1:-}" = --dry_run ] && { dry=1; shift; }
cd "$(dirname "$0")/.."
place=(--zone="${ZONE:?set ZONE, such as us-east5-b}" ${PROJECT:+--project="$PROJECT"})
tpus=(gcloud compute tpus)

run() {  # says a command and runs it
  printf '%q ' "$@"; echo
  [ -n "$dry" ] || "$@"
}

on() {  # $1: worker, or all; $2: what it runs
  run "${tpus[@]}" tpu-vm ssh "$name" "${place[@]}" --worker="$1" --command="$2"
}

state() {  # of the slice: READY, PREEMPTED, ...; ABSENT where there is none
  if [ -n "$dry" ]; then echo ABSENT; return; fi
  "${tpus[@]}" tpu-vm describe "$name" "${place[@]}" --format='value(state)' 2>/dev/null || echo ABSENT
}

version() {  # the image that belongs to a type
  case $TYPE in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

create() {
  local options=(--accelerator-type="${TYPE:?set TYPE, such as v6e-16}" ${SPOT:+--spot}) queued
  if [ "${QUEUED:-1}" = 0 ]; then
    run "${tpus[@]}" tpu-vm create "$name" "${place[@]}" "${options[@]}" \
      --version="${VERSION:-$(version)}"
    return
  fi
  run "${tpus[@]}" queued-resources create "$name" --node-id="$name" "${place[@]}" "${options[@]}" \
    --runtime-version="${VERSION:-$(version)}"
  while [ -z "$dry" ]; do
    queued=$("${tpus[@]}" queued-resources describe "$name" "${place[@]}" \
      --format='value(state.state)')
    echo "queued resource $name: $queued"
    case $queued in
      ACTIVE) break ;;
      FAILED | SUSPENDED)
        echo "error: the queued resource is $queued: bash launch/tpu_vm.sh delete, then again." >&2
        exit 1 ;;
    esac
    sleep "$pause"
  done
}

delete() {
  if [ "${QUEUED:-1}" = 0 ]; then
    run "${tpus[@]}" tpu-vm delete "$name" "${place[@]}" --quiet
  else
    run "${tpus[@]}" queued-resources delete "$name" "${place[@]}" --force --quiet
  fi
}

prepare() {  # the repository, Python and packages on all workers
  local code=${TMPDIR:-/tmp}/nanollm-$name.tgz mount=
  [ -n "${BUCKET:-}" ] && mount=" && mkdir -p runs \
&& { mountpoint -q runs || gcsfuse --implicit-dirs $(printf %q "$BUCKET") runs; }"
  run bash -c "git ls-files -coz --exclude-standard | tar -czf $(printf %q "$code") --null -T -"
  run "${tpus[@]}" tpu-vm scp "$code" "$name:nanollm.tgz" "${place[@]}" --worker=all
  on all "mkdir -p nanollm && tar -xzf nanollm.tgz -C nanollm && cd nanollm \
&& python3 -m pip install --quiet --user uv && ~/.local/bin/uv python install --quiet 3.12\
$mount && export PYTHON=\$(~/.local/bin/uv python find 3.12) && . launch/environment.sh && install tpu"
}

start() {
  local words
  words=$(printf '%q ' "$@")
  on all "cd nanollm && rm -f ended && { JAX_NUM_PROCESSES=auto EXTRAS=tpu setsid nohup bash -c \
$(printf %q "bash launch/supervise.sh $words; echo \$? > ended") > log 2>&1 < /dev/null & }"
}

look() {  # streams the log of worker 0 until the experiment has ended there; returns how
  on 0 'cd nanollm; tail -n 100 -F log & tail=$!
until [ -e ended ]; do sleep 5; done; sleep 1; kill $tail; exit $(cat ended)'
}

case ${1:-} in
  status) run "${tpus[@]}" queued-resources list "${place[@]}"
          run "${tpus[@]}" tpu-vm list "${place[@]}" ;;
  logs) look ;;
  delete) delete ;;
  experiments.*)
    while :; do
      now=$(state)
      if [ "$now" != READY ]; then
        [ "$now" = ABSENT ] || delete  # preempted: what is left of it is in the way
        create
        prepare
        start "$@"
      fi
      look && exit 0
      code=$?
      [ "$(state)" = READY ] && [ "$code" != 255 ] && exit "$code"  # 255: the connection broke
      sleep "$pause"
    done ;;
  *) sed -n '2,11s/^# \?//p' "$0"; exit 2 ;;
esac
