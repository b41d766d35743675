#!/usr/bin/env bash
# Exports a student as ONNX, in float32 and int8, and compares both files with PyTorch on the suite's dev rows:
#     bash scripts/export.sh <student folder>          writes <student folder>/onnx/ and prints a table
# Needs the packages of requirements-export.txt. See docs/deploy.md.
folder=
if [[ $# -gt 0 && $1 != -* ]]; then folder=$1; shift; fi
source "$(dirname "$0")/common.sh"

: "${SUITE=}"                  # suite whose dev rows to use; empty: the student's own
: "${DATA_DIR=${beside}data}"  # as in stage 1

if [[ -z $folder ]]; then fail "name the folder of a student, such as outputs/amazon/seed42/books/student_second"; fi

run scripts/export.py --folder "$folder" "$@"
