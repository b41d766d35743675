#!/usr/bin/env bash
# Stage 7: scores the teachers and every student of the run, on the student's domain and on all domains.
# It writes results.tsv, costs.tsv, predictions/, report.html, which shows the run, and, with SUBMISSION=1, submission/ into
# outputs/<suite>/seed<k>/; prints a table.
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"            # as in stage 1
: "${DOMAIN=}"                 # as in stage 4
: "${DOMAINS=}"                # as in stage 2
: "${TEACHER=meta}"            # which teacher to score: meta, single, mix or mtl
: "${TEACHER_DIR=}" --teacher_root  # as in stage 4
: "${SPLIT=test}"              # split to score: test (paper) or dev
: "${METRIC=}"                 # metric, or some joined by + for their mean; empty: the one that suite.json names for the domain (paper: accuracy)
: "${SUBMISSION=0}"            # 1: also write leaderboard files for the hidden tests (superglue, glue)
: "${SPREADSHEET=0}"           # 1: also write predictions/spreadsheet/, quoted where a spreadsheet would take cells for formulas
: "${REPORT=1}"                # 1: also write report.html, in some seconds; 0: do not
: "${REPORT_TO=none}"          # none, tensorboard or wandb: scores beside the curves of each checkpoint's training
: "${SEED=42}"                 # which run (paper: 42)
: "${DATA_DIR=${beside}data}"  # as in stage 1
: "${OUTPUT_DIR=${beside}outputs}" --output_root  # as in stage 3
: "${MAX_LENGTH=128}"          # as in stage 2
: "${EVAL_BATCH_SIZE=64}"      # as in stage 2
: "${PRECISION=auto}"          # auto (fp32), fp32, bf16 or fp16
: "${DEVICE=auto}"             # as in stage 2

run scripts/evaluate.py "$@"
