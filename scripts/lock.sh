#!/usr/bin/env bash
# Rewrites requirements.lock (the packages of requirements.txt and their dependencies) and requirements-dev.lock (what requirements-dev.txt
# adds), pinned with hashes, for Linux, macOS and every Python from 3.11 on. Needs uv (pip install uv) and a package index.
# torch, which environment.sh installs first, and its GPU libraries are excluded, because their files differ by build (CPU, CUDA).
set -euo pipefail
unset CDPATH
cd "$(dirname "$0")/.."

command -v uv >/dev/null || { echo "lock.sh: uv is not installed; install it with: pip install uv" >&2; exit 1; }
compile() { uv pip compile "$@" --universal --python-version 3.11 --quiet --no-header --no-annotate; }
without() { sed -E 's/^([A-Za-z0-9_.-]+)==.*/--no-emit-package \1/' | sort -u; }   # packages as arguments that leave them out
header() { echo "# Written by scripts/lock.sh from $1; environment.sh installs it."; }

all=$(mktemp)
trap 'rm -f "$all"' EXIT
compile requirements.txt requirements-dev.txt > "$all"
of_torch=$(grep -E '^(torch|nvidia|cuda|triton)' "$all" | without)
of_stages=$(compile requirements.txt --constraint "$all" | grep -v ' ; ' | without)   # those for some systems only may be needed on others too
# shellcheck disable=SC2086  # several arguments each
{
    { header requirements.txt; compile requirements.txt --constraint "$all" --generate-hashes $of_torch; } > requirements.lock.new
    { header requirements-dev.txt; compile requirements.txt requirements-dev.txt --generate-hashes $of_torch $of_stages; } > requirements-dev.lock.new
}
for name in requirements requirements-dev; do mv $name.lock.new $name.lock; done
