#!/usr/bin/env bash
# A student's answers to texts: the label and a probability for each label, in the order of the texts. TSV, or by the name of
# the output CSV (.csv), JSON lines (.jsonl) or Parquet (.parquet).
#     bash scripts/predict.sh <student folder> < texts.txt > answers.tsv
#     bash scripts/predict.sh <student folder> --input reviews.tsv --text_a review [--text_b title] [--keep guid] [--output answers.tsv]
#     JOBS=2 bash scripts/predict.sh <student folder> --input <folder of files> [--text_a review] --output <folder>
# Without --text_a the input is one text a line; a tab separates the two texts of a pair.
# Texts are read, answered and written a window at a time, so there may be any number. See docs/deploy.md.
folder=
if [[ $# -gt 0 && $1 != -* ]]; then folder=$1; shift; fi
source "$(dirname "$0")/common.sh"

: "${MAX_LENGTH=}"             # tokens after which a text is cut; empty: as the student was trained
: "${EVAL_BATCH_SIZE=64}" --batch_size  # texts a step
: "${PRECISION=auto}"          # auto (fp32), fp32, bf16 or fp16
: "${DEVICE=auto}"             # as in stage 2
: "${JOBS=1}"                  # processes that share the files of a folder, on a GPU each where there are several

if [[ -z $folder ]]; then fail "name the folder of a student, such as outputs/amazon/seed42/books/student_second"; fi

run scripts/predict.py --folder "$folder" "$@"
