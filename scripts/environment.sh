#!/usr/bin/env bash
# Creates .venv, the environment that the stages use, and installs torch, requirements.lock and requirements-dev.lock into it. These files (by
# scripts/lock.sh) pin packages and their dependencies with hashes: what the stages need, and what further formats, export, search and tests need.
# With the argument `stages` it installs only the first, in half the time. Does nothing if .venv is up to date.
# Needs Python 3.11 or newer and a package index that pip can reach.
set -euo pipefail
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")/.."

locks=(requirements.lock requirements-dev.lock)
installed=.venv/installed   # folder with copies of the locks that were installed; written only after success

stop() {  # message...: print the lines and stop
    printf '%s\n' "$@" >&2
    exit 1
}

check_python() {
    command -v python3 >/dev/null ||
        stop "There is no python3. Install Python 3.11 or newer, for example from https://www.python.org/downloads/."
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        stop "$(python3 --version) at $(command -v python3) is too old: Python 3.11 or newer is needed." \
            "Install one and put it first in PATH under the name python3 (conda, pyenv and uv can do that)."
}

make_venv() {  # also repairs one whose creation was interrupted
    if .venv/bin/python -m pip --version >/dev/null 2>&1; then return; fi
    echo "Creating .venv with $(python3 --version)"
    python3 -m venv --clear .venv ||
        stop "python3 -m venv failed (see above). On Debian and Ubuntu: apt install python3-venv"
}

up_to_date() {  # lock; false also if the Python that .venv was created with has been replaced by one that does not find its packages
    cat requirements.txt "$1" | cmp -s - "$installed/$1" &&
        .venv/bin/python -c 'import importlib.util as util, sys; sys.exit(not util.find_spec("torch"))' 2>/dev/null
}

install_lock() {  # lock
    echo "Installing torch and $1 into .venv (only once; takes a minute or more)"
    # Python compiles modules when it first imports them; compiling all of them here would take half a minute more.
    local pip=(.venv/bin/python -m pip --disable-pip-version-check --no-input install --no-compile)
    # torch is installed first, so that no other package pulls in another build of it.
    "${pip[@]}" "$(grep '^torch==' requirements.txt)" && "${pip[@]}" --no-deps --require-hashes --requirement="$1" ||
        stop "pip could not install the requirements (see above). Behind a proxy or mirror, set pip's own variables" \
            "(PIP_INDEX_URL, HTTPS_PROXY) and start again; packages that are already installed are kept."
    if [[ $1 == "${locks[0]}" ]]; then compile_large_packages; fi   # the other lock has none of them
    mkdir -p $installed
    cat requirements.txt "$1" > "$installed/$1"
}

compile_large_packages() {  # where Python may keep no bytecode, every stage would compile them again, for several seconds
    if [[ -z ${PYTHONDONTWRITEBYTECODE:-} ]]; then return; fi
    env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -c 'import jinja2, matplotlib.pyplot, sklearn.metrics, torch, transformers.trainer'
}

case ${*-} in
    "") ;;
    stages) locks=(requirements.lock) ;;
    *) stop "environment.sh: unknown arguments $*; use no argument, or the word stages" ;;
esac
for lock in "${locks[@]}"; do
    if up_to_date "$lock"; then continue; fi
    check_python
    make_venv
    install_lock "$lock"
done
