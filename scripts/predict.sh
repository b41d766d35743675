#!/usr/bin/env bash
# Classifies texts with a student: prints the label and the probability of each label, in the order of the texts. The output is TSV,
# or CSV, JSON lines or Parquet if --output ends in .csv, .jsonl or .parquet.
#     bash scripts/predict.sh <student folder> < texts.txt > answers.tsv
#     bash scripts/predict.sh <student folder> --input reviews.tsv --text_a review [--text_b title] [--keep guid] [--output answers.tsv]
#     JOBS=2 bash scripts/predict.sh <student folder> --input <folder of files> [--text_a review] --output <folder>
# Without --text_a the input is one text per line; a tab separates the two texts of a pair.
# Texts are processed in windows, so memory does not grow with their number. See docs/deploy.md.
folder=
if [[ $# -gt 0 && $1 != -* ]]; then folder=$1; shift; fi
source "$(dirname "$0")/common.sh"

: "${MAX_LENGTH=}"             # maximum number of tokens of a text; empty: as in the student's training
: "${EVAL_BATCH_SIZE=64}" --batch_size  # texts per batch
: "${PRECISION=auto}"          # auto (fp32), fp32, bf16 or fp16
: "${DEVICE=auto}"             # as in stage 2
: "${JOBS=1}"                  # processes that share the files of a folder, each on its own GPU if there are several

if [[ -z $folder ]]; then fail "name the folder of a student, such as outputs/amazon/seed42/books/student_second"; fi

run scripts/predict.py --folder "$folder" "$@"
