#!/usr/bin/env bash
# Runs the tests on a CPU mesh of 8 pretend devices: bash launch/test.sh [pytest arguments]
# Slow tests are left out; bash launch/test.sh -m slow runs them.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
install "test,$(extras)"
# Compiling takes most of the time: it leaves out optimisations, but not for slow tests.
[[ " $* " == *" slow "* ]] || export JAX_DISABLE_MOST_OPTIMIZATIONS=${JAX_DISABLE_MOST_OPTIMIZATIONS:-1}
# Two workers: compiling uses one core. A file stays with one of them, and shares what it compiled;
# in the order of their names, as files of few but long tests would come last else.
exec "$venv/bin/python" -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder "$@" tests
