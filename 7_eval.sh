#!/usr/bin/env bash
# Stage 7: scores the teachers and every student of the run, on the student's domain and on all domains, and prints a table.
# It writes results.tsv, classes.tsv, calibration.tsv, costs.tsv, predictions/, report.html (a page about the run) and, with
# SUBMISSION=1, submission/ to outputs/<suite>/seed<k>/.
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"            # as in stage 1
: "${DOMAIN=}"                 # as in stage 4
: "${DOMAINS=}"                # as in stage 2
: "${TEACHER=meta}"            # teacher that the undistilled student is compared with: meta, single, mix or mtl; all teachers of the run are scored
: "${TEACHER_DIR=}" --teacher_root  # as in stage 4
: "${SPLIT=test}"              # split to score: test (paper), dev, quiz or train
: "${METRIC=}"                 # metric, or several joined by +, for their mean; empty: the domain's metric in suite.json (paper: accuracy)
: "${SUBMISSION=0}"            # 1: also write leaderboard files for the hidden tests (superglue, glue)
: "${SPREADSHEET=0}"           # 1: also write predictions/spreadsheet/, where cells that a spreadsheet would take for formulas are quoted
: "${REPORT=1}"                # 1: also write report.html, which takes some seconds; 0: do not
: "${REPORT_TO=none}"          # none, tensorboard or wandb: logs scores beside the training curves of each checkpoint
: "${SEED=42}"                 # seed of the run to score (paper: 42)
: "${DATA_DIR=${beside}data}"  # as in stage 1
: "${OUTPUT_DIR=${beside}outputs}" --output_root  # as in stage 3
: "${MAX_LENGTH=128}"          # as in stage 2
: "${EVAL_BATCH_SIZE=64}"      # as in stage 2
: "${PRECISION=auto}"          # auto (fp32), fp32, bf16 or fp16
: "${DEVICE=auto}"             # as in stage 2

run scripts/evaluate.py "$@"
