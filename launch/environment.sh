# Sourced by the launchers: makes .venv once, installs from setup.py with this Python's pins.
# VENV=folder uses another place, PYTHON=program another interpreter, EXTRAS=a,b more extras.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${VENV:-.venv}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.12 python3.11}; do
    "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
      2>/dev/null && { echo "$candidate"; return; }
  done
  echo 'error: no Python 3.11 or 3.12 found: install one, or name it: PYTHON=/path/to/python.' >&2
  return 1
}

extras() {  # what this machine can use, besides what was asked for
  local list=${EXTRAS:-} driver
  if [[ $list != *cuda* ]] && ! grep -qs '^cuda' "$venv/installed" \
      && nvidia-smi -L >/dev/null 2>&1; then
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)
    [ "${driver%%.*}" -lt 580 ] 2>/dev/null && list+=,cuda12 || list+=,cuda  # 13 needs 580
  fi
  compgen -G '/dev/accel*' >/dev/null && list+=,tpu
  echo "${list#,}"
}

install() {  # $1: extras; does nothing when they are there, and keeps those of before
  local python pins sum wanted
  [ -x "$venv/bin/python" ] || {
    python=$(find_python) || return 1
    echo "making $venv with $("$python" --version)"
    "$python" -m venv "$venv" || return 1; }
  pins=constraints/py$("$venv/bin/python" -c 'import sys; print("%d%d" % sys.version_info[:2])').txt
  sum=$(cat setup.py "$pins" | cksum)
  wanted=$({ tr , '\n' <<< "$1"; sed 1d "$venv/installed" 2>/dev/null || true; } | sed '/^$/d' | sort -u)
  if [ "$(grep -c '^cuda' <<< "$wanted")" -gt 1 ]; then
    echo "error: $venv has one CUDA, and EXTRAS asks for another: give VENV=another-folder." >&2
    return 1
  fi
  [ "$(cat "$venv/installed" 2>/dev/null)" = "$sum${wanted:+$'\n'}$wanted" ] && return
  echo 'installing (once; later runs need no network)'
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$pins" \
    -e ".${wanted:+[$(paste -sd, <<< "$wanted")]}" || {
      echo 'error: the installation failed: it needs a package index this once; run the same' \
           'command again.' >&2; return 1; }
  printf '%s\n' "$sum" ${wanted:+"$wanted"} > "$venv/installed"
}

export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$PWD/.cache/jax}
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=${JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS:-0}
export PYTHONUNBUFFERED=1
