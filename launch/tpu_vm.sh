#!/usr/bin/env bash
# Runs an experiment on a Cloud TPU slice, from this machine, with gcloud.
#   ZONE=us-east5-b TYPE=v6e-16 BUCKET=mine \
#     bash launch/tpu_vm.sh [--dry_run] experiments.pretrain --flagfile=...
#   ZONE=us-east5-b bash launch/tpu_vm.sh [--dry_run] status | logs | delete
# It makes the slice (a queued resource; QUEUED=0: at once), copies the repository, installs it on
# all workers, starts the experiment there under supervise.sh and streams the log of worker 0.
# Stop it here and it goes on there; the same command looks again, or starts it again if it ended
# with an error. Another command takes its place: what still runs there saves, and is stopped.
# While it looks, a slice that is preempted is made anew and the run goes on from BUCKET, mounted as
# runs/ (without it, all is lost).
# Settings: NAME (nanollm), ZONE, TYPE, BUCKET, PROJECT, VERSION of the image, SPOT=1, QUEUED=0.
set -euo pipefail
dry= known= well=0 name=${NAME:-nanollm} queued=${QUEUED:-1} pause=${PAUSE:-20}
[ "${1:-}" = --dry_run ] && { dry=1; shift; }
cd "$(dirname "$0")/.."
place=(--zone="${ZONE:?set ZONE, such as us-east5-b}" ${PROJECT:+--project="$PROJECT"})
tpus=(gcloud compute tpus)
# In nanollm/ a worker keeps the words started last (command), their pid, log and exit code (ended).
alive='pgrep -F pid -f launch/supervise.sh > /dev/null 2>&1'

run() {  # says a command and runs it
  printf '%q ' "$@"; echo
  [ -n "$dry" ] || "$@"
}

on() {  # $1: worker, or all; $2: what it runs
  run "${tpus[@]}" tpu-vm ssh "$name" "${place[@]}" --worker="$1" --command="$2"
}

describe() {  # $1: tpu-vm or queued-resources; $2: of it; ABSENT where there is none
  local errors=${TMPDIR:-/tmp}/nanollm-$name.errors
  "${tpus[@]}" "$1" describe "$name" "${place[@]}" --format="value($2)" 2> "$errors" && return
  grep -q NOT_FOUND "$errors" && echo ABSENT && return
  cat "$errors" >&2  # no answer: the network, or a right that is missing
  return 1
}

state() {  # of the slice, or where there is none of its place in the queue
  local now=ABSENT
  if [ -z "$dry" ]; then
    now=$(describe tpu-vm state) || return
    if [ "$now" = ABSENT ] && [ "$queued" != 0 ]; then
      now=$(describe queued-resources state.state) || return
    fi
  fi
  echo "$now"
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
  local options=(--accelerator-type="${TYPE:?set TYPE, such as v6e-16}" ${SPOT:+--spot})
  if [ "$queued" != 0 ]; then
    run "${tpus[@]}" queued-resources create "$name" --node-id="$name" "${place[@]}" \
      "${options[@]}" --runtime-version="${VERSION:-$(version)}"
  else
    run "${tpus[@]}" tpu-vm create "$name" "${place[@]}" "${options[@]}" \
      --version="${VERSION:-$(version)}"
  fi
}

delete() {
  if [ "$queued" != 0 ]; then
    run "${tpus[@]}" queued-resources delete "$name" "${place[@]}" --force --quiet
  else
    run "${tpus[@]}" tpu-vm delete "$name" "${place[@]}" --quiet
  fi
}

slice() {  # returns when it is ready: makes it where there is none, and anew where it is preempted
  local now
  while :; do
    now=$(state) || { [ -n "$known" ] || exit 1; now='no answer'; }
    known=1
    case $now in
      READY) return ;;
      ABSENT) create; [ -z "$dry" ] || return 0 ;;
      PREEMPTED | TERMINATED | STOPPED | SUSPENDED) delete ;;  # what is left of it is in the way
      FAILED) echo "error: the queued resource is $now: bash launch/tpu_vm.sh delete, then again." >&2
              exit 1 ;;
      *) echo "slice $name: $now"; sleep "$pause" ;;
    esac
  done
}

is_there() {  # says yes where worker 0 runs these words or ran them last, and well; else no
  local there="$alive || grep -qsx '$well' ended"  # it ends after writing ended
  "${tpus[@]}" tpu-vm ssh "$name" "${place[@]}" --worker=0 --command="cd nanollm 2> /dev/null \
&& [ \"\$(cat command 2> /dev/null)\" = $(printf %q "$*") ] \
&& { $there || { sleep 1; $there; }; } && echo yes || echo no"  # or it only begins to run
}

prepare() {  # the repository, Python and packages on all workers, where nothing may run meanwhile
  local code=${TMPDIR:-/tmp}/nanollm-$name.tgz mount=
  [ -n "${BUCKET:-}" ] && mount=" && mkdir -p runs \
&& { mountpoint -q runs \
|| gcsfuse --implicit-dirs --rename-dir-limit=100000 $(printf %q "$BUCKET") runs; }"
  run bash -c "git ls-files -coz --exclude-standard | tar -czf $(printf %q "$code") --null -T -"
  run "${tpus[@]}" tpu-vm scp "$code" "$name:nanollm.tgz" "${place[@]}" --worker=all
  on all "mkdir -p nanollm && cd nanollm \
&& if $alive; then pkill -TERM -P \$(cat pid); while $alive; do sleep 1; done; fi \
&& tar -xzf ../nanollm.tgz \
&& python3 -m pip install --quiet --user uv && ~/.local/bin/uv python install --quiet 3.12\
$mount && export PYTHON=\$(~/.local/bin/uv python find 3.12) && . launch/environment.sh && install tpu"
}

start() {
  on all "cd nanollm && rm -f ended && echo $(printf %q "$*") > command \
&& { JAX_NUM_PROCESSES=auto EXTRAS=tpu setsid nohup bash -c \
$(printf %q "bash launch/supervise.sh $*; echo \$? > ended") > log 2>&1 < /dev/null & echo \$! > pid; }"
}

look() {  # streams the log of worker 0 until the experiment has ended there; returns how
  on 0 "cd nanollm; tail -n 100 -F log & tail=\$!
while $alive; do sleep 5; done; sleep 1; kill \$tail; exit \$(cat ended || echo 255)"
}

case ${1:-} in
  status) run "${tpus[@]}" queued-resources list "${place[@]}"
          run "${tpus[@]}" tpu-vm list "${place[@]}" ;;
  logs) look ;;
  delete) delete ;;
  experiments.*)
    words=$(printf '%q ' "$@")
    while :; do
      slice; there=no
      [ -n "$dry" ] || there=$(is_there "$words") || true
      case $there in
        *no) prepare; start "$words" ;;
        *yes) ;;
        *) sleep "$pause"; continue ;;  # no answer
      esac
      well='.*'  # from now on an end with an error is told, and not begun again
      look && exit 0
      code=$?
      [ "$(state)" = READY ] && [ "$code" != 255 ] && exit "$code"  # 255: the connection broke
      sleep "$pause"
    done ;;
  *) sed -n '2,13s/^# \?//p' "$0"; exit 2 ;;
esac
