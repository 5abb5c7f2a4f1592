#!/usr/bin/env bash
# Runs an experiment on a Slurm cluster, one process a GPU, from a folder that all nodes see.
#   NODES=2 GPUS=8 bash launch/slurm.sh [--dry_run] experiments.pretrain --flagfile=...
#   bash launch/slurm.sh [--dry_run] status | logs JOB | delete JOB
# Settings: NODES (1), GPUS a node (8), CPUS a GPU (8), TIME (24:00:00), NAME (nanollm), and
# SBATCH=more options, such as SBATCH='--partition=gpu --account=me'. A preempted job is queued
# again, a process that is killed starts with the others, and both go on from the newest checkpoint.
set -euo pipefail
dry= nodes=${NODES:-1} gpus=${GPUS:-8} cpus=${CPUS:-8} name=${NAME:-nanollm}
[ "${1:-}" = --dry_run ] && { dry=1; shift; }
cd "$(dirname "$0")/.."

run() {  # says a command and runs it
  printf '%q ' "$@"; echo
  [ -n "$dry" ] || "$@"
}

case ${1:-} in
  status) run squeue --name="$name" --format='%i %T %M %R' ;;
  logs) run tail -n 100 -F "slurm-${2:?which job?}.log" ;;
  delete) run scancel "${2:?which job?}" ;;
  experiments.*)
    [ -n "$dry" ] || (source launch/environment.sh; EXTRAS=${EXTRAS:-cuda}; install "$(extras)")
    # A task that saved and stopped must not end the others; of one that died they take notice.
    start="srun --kill-on-bad-exit=0 --ntasks=$((nodes * gpus)) --gpus-per-node=$gpus"
    start+=" --cpus-per-task=$cpus"
    words=$(printf '%q ' env JAX_NUM_PROCESSES=auto "EXTRAS=${EXTRAS:-cuda}" "START=$start" \
      bash launch/supervise.sh "$@")
    # The shell of the job gets the signal (B:) two minutes before its end; supervise.sh hands it on.
    run sbatch --job-name="$name" --nodes="$nodes" --ntasks-per-node="$gpus" \
      --gpus-per-node="$gpus" --cpus-per-task="$cpus" --time="${TIME:-24:00:00}" --requeue \
      --open-mode=append --output=slurm-%j.log --signal=B:TERM@120 ${SBATCH:-} \
      --wrap="exec $words" ;;
  *) sed -n '2,7s/^# \?//p' "$0"; exit 2 ;;
esac
