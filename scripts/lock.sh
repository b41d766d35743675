#!/usr/bin/env bash
# Rewrites requirements.lock from requirements.txt and requirements-dev.txt: all packages with their dependencies, pinned with
# hashes, for Linux, macOS and every Python from 3.11 on. Needs uv (pip install uv) and a package index.
# torch, which environment.sh installs first, and its GPU libraries are excluded, because their files differ by build (CPU, CUDA).
set -euo pipefail
unset CDPATH
cd "$(dirname "$0")/.."

command -v uv >/dev/null || { echo "lock.sh: uv is not installed; install it with: pip install uv" >&2; exit 1; }
compile=(uv pip compile requirements.txt requirements-dev.txt --universal --python-version 3.11 --quiet --no-header --no-annotate)
of_torch=(--no-emit-package torch)
for name in $("${compile[@]}" | sed -nE 's/^((nvidia|cuda|triton)[a-z0-9-]*)==.*/\1/p'); do
    of_torch+=(--no-emit-package "$name")
done
{
    echo "# Written by scripts/lock.sh from requirements.txt and requirements-dev.txt; environment.sh installs it."
    "${compile[@]}" --generate-hashes "${of_torch[@]}"
} > requirements.lock.new
mv requirements.lock.new requirements.lock
