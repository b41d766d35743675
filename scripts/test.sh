#!/usr/bin/env bash
# Runs the tests: makes or reuses .venv, then calls pytest. Arguments go to pytest, e.g. tests/test_losses.py -x.
# Without arguments it also measures which lines of src/ the tests run, and fails under 90 % (pyproject.toml).
# The tests need no network; they download nothing and ask no model hub.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/environment.sh

export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
if [[ $# -eq 0 ]]; then set -- --cov; fi   # of a part of the tests the figure would say nothing
# Files go to the processes in the order of tests/conftest.py: the costly ones first, so that all end at about the same time.
run=(.venv/bin/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder "$@")
echo "Running the tests, one process a core: ${run[*]}"
exec "${run[@]}"
