#!/usr/bin/env bash
# Checks the code with ruff and mypy, then runs the tests; all three run, and any of them can fail the command. With
# arguments, which go to pytest (e.g. tests/test_losses.py -x), only the tests. Makes or reuses .venv.
# The tests need no network; they download nothing and ask no model hub.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/environment.sh

status=0
if [[ $# -eq 0 ]]; then
    echo "Checking the code: .venv/bin/python -m ruff check, .venv/bin/python -m mypy"
    .venv/bin/python -m ruff check src tests scripts benchmarks examples || status=1
    .venv/bin/python -m mypy || status=1
fi
found=$status

export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
echo "Running the tests, one process a core: .venv/bin/python -m pytest -q -n auto --dist loadfile $*"
.venv/bin/python -m pytest -q -n auto --dist loadfile "$@" || status=$?
if [[ $found -ne 0 ]]; then echo "ruff or mypy found something: see above the tests" >&2; fi
exit "$status"
