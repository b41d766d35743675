#!/usr/bin/env bash
# Stage 7: scores the teachers and every student of the run, on the student's domain and on all domains.
# It writes results.tsv, costs.tsv, predictions/, report.html, which shows the run, and, with SUBMISSION=1, submission/ into
# outputs/<suite>/seed<k>/; prints a table.
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"            # amazon, mnli, superglue, glue, sample or custom
: "${DOMAIN=}"                 # the students' domain; empty: the suite's first; all: one after the other
: "${DOMAINS=}"                # domains in use, separated by commas or blanks; empty: all of the suite
: "${TEACHER=meta}"            # which teacher to score: meta, single, mix or mtl
: "${TEACHER_DIR=}" --teacher_root  # OUTPUT_DIR of another run, whose teacher the students had; empty: this run's
: "${SPLIT=test}"              # split to score: test (paper) or dev
: "${METRIC=}"                 # metric; empty: the one that suite.json names for the domain (paper: accuracy)
: "${SUBMISSION=0}"            # 1: also write leaderboard files for the hidden tests (superglue, glue)
: "${SPREADSHEET=0}"           # 1: also write predictions/spreadsheet/, quoted where cells would be taken for formulas
: "${REPORT=1}"                # 1: also write report.html, in some seconds; 0: do not
: "${REPORT_TO=none}"           # none, tensorboard or wandb: scores beside the curves of each checkpoint's training
: "${SEED=42}"                 # which run (paper: 42)
: "${DATA_DIR=${beside}data}"  # raw archives, processed suites and fetched models
: "${OUTPUT_DIR=${beside}outputs}" --output_root  # what stages 3 to 7 write
: "${MAX_LENGTH=128}"          # tokens an example, as in training (paper: 128)
: "${EVAL_BATCH_SIZE=64}"      # examples a step
: "${PRECISION=auto}"          # auto (fp32), fp32, bf16 or fp16
: "${DEVICE=auto}"             # auto, cpu, cuda or cuda:<number>

run scripts/evaluate.py "$@"
