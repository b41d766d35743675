#!/usr/bin/env bash
# Stage 7: scores the teachers and every student of the run, on the student's domain and on all domains.
# It writes results.tsv, costs.tsv, predictions/, report.html, which shows the run, and, with SUBMISSION=1, submission/ into
# outputs/<suite>/seed<k>/; prints a table.
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"            # amazon, mnli, superglue, glue, sample or custom
: "${DOMAIN=}"                 # the students' domain; empty: the suite's first; all: one after the other
: "${DOMAINS=}"                # domains in use, separated by commas or blanks; empty: all of the suite
: "${TEACHER=meta}"            # which teacher to score: meta, single, mix or mtl
: "${TEACHER_DIR=}"            # OUTPUT_DIR of another run, whose teacher the students had; empty: this run's
: "${SPLIT=test}"              # split to score: test (paper) or dev
: "${METRIC=}"                 # metric; empty: the one that suite.json names for the domain (paper: accuracy)
: "${SUBMISSION=0}"            # 1: also write leaderboard files for the hidden tests (superglue, glue)
: "${SPREADSHEET=0}"           # 1: also write predictions/spreadsheet/, quoted where cells would be taken for formulas
: "${REPORT=1}"                # 1: also write report.html, in some seconds; 0: do not
: "${REPORT_TO=none}"           # none, tensorboard or wandb: scores beside the curves of each checkpoint's training
: "${SEED=42}"                 # which run (paper: 42)
: "${MAX_LENGTH=128}"          # tokens an example, as in training (paper: 128)
: "${EVAL_BATCH_SIZE=64}"      # examples a step
: "${PRECISION=auto}"          # auto (fp32), fp32, bf16 or fp16
: "${DEVICE=auto}"             # auto, cpu, cuda or cuda:<number>

run scripts/evaluate.py \
    --suite "$SUITE" --domain "$DOMAIN" --domains "$DOMAINS" --data_dir "$DATA_DIR" --output_root "$OUTPUT_DIR" \
    --seed "$SEED" --teacher "$TEACHER" --teacher_root "$TEACHER_DIR" \
    --split "$SPLIT" --metric "$METRIC" --submission "$SUBMISSION" --spreadsheet "$SPREADSHEET" --report "$REPORT" --report_to "$REPORT_TO" \
    --max_length "$MAX_LENGTH" --eval_batch_size "$EVAL_BATCH_SIZE" --precision "$PRECISION" --device "$DEVICE" "$@"
