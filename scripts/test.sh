#!/usr/bin/env bash
# Runs the tests: makes or reuses .venv, then calls pytest. Arguments go to pytest, e.g. tests/test_losses.py -x.
# The tests need no network; they download nothing and ask no model hub.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/environment.sh

export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
echo "Running the tests, one process a core: .venv/bin/python -m pytest -q -n auto --dist loadfile $*"
exec .venv/bin/python -m pytest -q -n auto --dist loadfile "$@"
