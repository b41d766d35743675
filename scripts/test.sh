#!/usr/bin/env bash
# Checks the code with ruff, mypy and import-linter, then runs the tests and measures their coverage of src/. Every check runs. The
# command fails if any of them fails or if coverage is below 90 % (pyproject.toml). Creates or reuses .venv.
# Arguments go to pytest (e.g. tests/methods/test_losses.py -x); then only the tests run.
# The tests need no network: they download nothing and do not contact the model hub.
set -euo pipefail
unset CDPATH
cd "$(dirname "$0")/.."
bash scripts/environment.sh

status=0
if [[ $# -eq 0 ]]; then
    # Snakemake, which some tests use, gets an environment of its own because it needs older packages.
    engines=.venv/snakemake
    if ! cmp -s requirements-engines.txt $engines/installed.txt; then
        echo "Installing Snakemake into $engines (only once)"
        { .venv/bin/python -m venv --clear $engines && $engines/bin/python -m pip --disable-pip-version-check --quiet install \
            -r requirements-engines.txt && cp requirements-engines.txt $engines/installed.txt; } ||
            echo "Snakemake could not be installed (see above); the tests that use it are skipped" >&2
    fi
    echo "Checking the code: .venv/bin/python -m ruff check, .venv/bin/python -m mypy, .venv/bin/lint-imports"
    .venv/bin/python -m ruff check src tests scripts benchmarks examples || status=1
    .venv/bin/python -m mypy || status=1
    PYTHONPATH=src .venv/bin/lint-imports || status=1   # which folder may import which: pyproject.toml
    set -- --cov   # coverage means nothing if only some tests run
fi
found=$status

export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
# Test files are distributed in the order of tests/conftest.py: the slowest first, so that all processes end at about the same time.
run=(.venv/bin/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder "$@")
echo "Running the tests, one process per core: ${run[*]}"
"${run[@]}" || status=$?
if [[ $found -ne 0 ]]; then echo "ruff, mypy or import-linter reported errors: see the output before the tests" >&2; fi
exit "$status"
