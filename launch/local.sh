#!/usr/bin/env bash
# Runs on this machine: the main job, or any experiment with its flags.
#   bash launch/local.sh
#   bash launch/local.sh experiments.pretrain --flagfile=experiments/configs/pretrain/laptop.flags
set -euo pipefail
source "$(dirname "$0")/environment.sh"
install "$(extras)"

run() {
  echo; echo "== python -m $*"
  "$venv/bin/python" -m "$@"
}

if [ $# -gt 0 ]; then
  run "$@"
  exit
fi

configs=experiments/configs
run experiments.build_world --flagfile=$configs/world/laptop.flags
run experiments.train_tokenizer --flagfile=$configs/tokenizer/laptop.flags
run experiments.pretrain --flagfile=$configs/pretrain/laptop.flags
run experiments.lecture.stochastic
run experiments.lecture.regurgitation
run experiments.lecture.in_context
run experiments.sft --flagfile=$configs/sft/laptop.flags
run experiments.evaluate --flagfile=$configs/evaluate/laptop.flags
run experiments.lecture.base_vs_assistant
echo
echo "done in $((SECONDS / 60)) min $((SECONDS % 60)) s: open runs/pretrain/report.html and runs/sft/report.html, and talk to both:"
echo '  bash launch/local.sh experiments.generate --init_from=runs/pretrain "Once"'
echo '  bash launch/local.sh experiments.chat --init_from=runs/sft'
