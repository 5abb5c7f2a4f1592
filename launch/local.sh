#!/usr/bin/env bash
# Runs on this machine: the main job, its short form with fewer steps, or any experiment.
#   bash launch/local.sh
#   bash launch/local.sh --quick
#   bash launch/local.sh experiments.pretrain --flagfile=experiments/configs/pretrain/laptop.flags
set -euo pipefail
source "$(dirname "$0")/environment.sh"
install "web,$(extras)"

run() {
  echo; echo "== python -m $*"
  "$venv/bin/python" -m "$@"
}

quick= runs=runs
[ "${1:-}" = --quick ] && { quick=_quick runs=runs/quick; shift; }
if [ $# -gt 0 ]; then
  run "$@"
  exit
fi

configs=experiments/configs
run experiments.build_world --flagfile=$configs/world/laptop.flags
run experiments.filter_web --flagfile=$configs/filter_web/laptop.flags
run experiments.train_tokenizer --flagfile=$configs/tokenizer/laptop.flags
run experiments.pretrain --flagfile=$configs/pretrain/laptop$quick.flags
run experiments.lecture.stochastic --init_from=$runs/pretrain
run experiments.lecture.regurgitation --init_from=$runs/pretrain
run experiments.lecture.in_context --init_from=$runs/pretrain
run experiments.sft --flagfile=$configs/sft/laptop$quick.flags
run experiments.evaluate --flagfile=$configs/evaluate/laptop$quick.flags
run experiments.rl --flagfile=$configs/rl/laptop$quick.flags
run experiments.reward_model --flagfile=$configs/reward_model/laptop$quick.flags
run experiments.rl --flagfile=$configs/rl/rlhf$quick.flags
echo
echo "done in $((SECONDS / 60)) min $((SECONDS % 60)) s: see report.html in the folders of $runs."
echo "Talk to the base model, to what practised products with Python, and to what practised jokes:"
echo "  bash launch/local.sh experiments.generate --init_from=$runs/pretrain \"Once\""
echo "  bash launch/local.sh experiments.chat --init_from=$runs/rl"
echo "  bash launch/local.sh experiments.chat --init_from=$runs/rlhf"
