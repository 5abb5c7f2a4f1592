#!/usr/bin/env bash
# Runs an experiment until it ends: what is killed starts again and goes on from its checkpoint.
#   bash launch/supervise.sh experiments.pretrain --flagfile=experiments/configs/pretrain/laptop.flags
#   PROCESSES=2 bash launch/supervise.sh ...     that many processes of one job on this machine
#   START='srun ...' bash launch/supervise.sh    how a process is started (see slurm.sh)
# Ends with the experiment, at an error that it says itself (exit code 1), when it is itself told
# to stop, when 5 lives in a row are shorter than a minute, or when 10 in a row save no checkpoint
# (where the workdir has a folder for them). Lives that save one never run out. Needs bash 5.1.
set -uo pipefail
if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 501)); then
  echo "error: launch/supervise.sh needs bash 5.1 or newer, this is $BASH_VERSION." >&2
  exit 1
fi
source "$(dirname "$0")/environment.sh"
install "$(extras)" || exit 1
count=${PROCESSES:-1} stopping= short=0 vain=0 children=()
stop() {
  stopping=$1
  if [[ -n ${SLURM_JOB_ID:-} && ${START:-} == srun* ]]; then
    scancel --signal=TERM "$SLURM_JOB_ID"  # to the tasks: srun itself would kill them unsaved
  else
    kill -TERM "${children[@]}" 2>/dev/null
  fi
}
trap 'stop 143' TERM
trap 'stop 130' INT

words() {  # those given, with what is in flagfiles; a flag and its value are one word
  local word lines bare=
  for word; do
    word=${bare:+$bare=}$word bare=
    if [[ $word == --workdir || $word == --flagfile ]]; then bare=$word; continue; fi
    echo "$word"
    [[ $word == --flagfile=* ]] && mapfile -t lines 2>/dev/null < "${word#*=}" && words "${lines[@]}"
  done
}

newest() {  # the newest whole checkpoint
  ls "$saved" 2>/dev/null | grep -x '[0-9]*' | sort -n | tail -n 1
}

live() {  # all processes, until the last has gone; returns how the first one that failed ended
  local index one code=0 ended failed=0 killer=
  local address=127.0.0.1:$((20000 + RANDOM % 20000))
  # What a process leaves here when an error is not to be repeated (see nanollm_jax/flags.py): in a
  # folder that all nodes see, by a new name, as a network's disk may remember that one is missing.
  export NANOLLM_ERROR=$(realpath "$venv")/error-$HOSTNAME-$$-$SECONDS
  children=()
  for ((index = 0; index < count; index++)); do
    if ((count > 1)); then
      export JAX_NUM_PROCESSES=$count JAX_COORDINATOR_ADDRESS=$address JAX_PROCESS_ID=$index
    fi
    ${START:-} "$venv/bin/python" -m "$@" &
    children+=($!)
  done
  [ -z "$stopping" ] || kill -TERM "${children[@]}"  # the signal came before they were known
  while ((${#children[@]})); do
    wait -n -p ended "${children[@]}"; code=$?
    [ -n "${ended:-}" ] || continue  # a signal came
    for index in "${!children[@]}"; do
      [ "${children[index]}" = "$ended" ] && unset "children[index]"
    done
    ((failed)) || failed=$code
    if ((failed && ${#children[@]})) && [ -z "$killer" ]; then  # the others see it, or are ended
      (trap - TERM INT; sleep "${GRACE:-20}"; kill -KILL "${children[@]}") > /dev/null 2>&1 &
      killer=$!
    fi
  done
  [ -n "$killer" ] && { kill "$killer"; wait "$killer"; } 2>/dev/null
  return "$failed"
}

saved=$(words "--workdir=runs/${1#experiments.}" "$@" | sed -n 's/^ *--workdir=//p' | tail -n 1)
saved+=/checkpoints
while [ -z "$stopping" ]; do
  began=$SECONDS before=$(newest)
  live "$@"; code=$?
  if [ -e "$NANOLLM_ERROR" ]; then rm "$NANOLLM_ERROR"; code=1; fi  # srun may return another's code
  if ((code < 2)) || [ -n "$stopping" ]; then exit "$code"; fi
  if ((SECONDS - began < ${SHORT:-60})); then ((++short)); else short=0; fi
  if [ -d "$saved" ] && [ "$(newest)" = "$before" ]; then ((++vain)); else vain=0; fi
  why=
  ((short < 5)) || why='5 lives in a row were shorter than a minute'
  ((vain < 10)) || why="10 lives in a row saved nothing in $saved"
  if [ -n "$why" ]; then
    echo "supervise: ended with code $code; $why." >&2
    exit "$code"
  fi
  echo "supervise: ended with code $code after $((SECONDS - began)) s: it starts again" >&2
  sleep "$short" & children=($!)  # a signal ends it too
  [ -z "$stopping" ] || kill "$!"  # one that came before the pause was known
  wait "$!"
done
exit "$stopping"
