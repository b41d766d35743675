#!/usr/bin/env bash
# Stage 2: turns raw files into train, quiz, dev and test TSVs, and scores train rows by their prototypes.
# It reads data/raw/<suite>/ and writes data/<suite>/ with suite.json.
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"                     # as in stage 1
: "${DOMAINS=}"                         # domains in use, separated by commas or blanks; empty: all of the suite
: "${SOURCE=}"                          # custom: a file, a folder, or hub:<data set>; CSV, TSV, JSON lines, Parquet; empty: data/raw/custom
: "${TEXT_A_COLUMN=}"                   # custom: column that holds the text; empty: text_a
: "${TEXT_B_COLUMN=}"                   # custom: column that holds the second text of a pair; empty: text_b, if there is one
: "${LABEL_COLUMN=}"                    # custom: column that holds the label; empty: label
: "${DOMAIN_COLUMN=}"                   # custom: any column that tells domains apart; empty: domain; without one all rows are one domain
: "${DELIMITER=}"                       # custom: sign between the columns of a CSV file, '\t' for a tab; empty: , ; tab or |, whichever the header has
: "${QUIZ_FRACTION=}"                   # share of train that becomes quiz; empty: 0.1, with PROTOCOL=paper 0 in all suites but superglue and glue
: "${DEV_FRACTION=0.1}"                 # custom: share that becomes dev where no dev is given
: "${TEST_FRACTION=0.1}"                # custom: share that becomes test where no test is given
: "${GROUP_BY=auto}"                    # custom: rows of one text stay in one split: text_a, text_b, none, or auto: text_a of pairs
: "${GROUP_COLUMN=}"                    # custom: the same of a column's values, for instance an author's, in place of GROUP_BY
: "${PROTOCOL=honest}"                  # honest or paper; it is recorded, and sets the default of QUIZ_FRACTION
: "${SKIP_BAD_ROWS=0}"                  # 1: drop bad rows and count them, instead of stopping
: "${DEDUPLICATE=0}"                    # 1: leave train and quiz rows out whose texts are in test or dev
: "${TEACHER_MODEL=bert-base-uncased}" no flag  # hub name, folder, scratch:tiny or scratch:mini (paper: BERT-base)
: "${EMBEDDING_MODEL=$TEACHER_MODEL}"   # encoder of the prototype scores, not fine-tuned (paper: the teacher's)
: "${PROTOTYPE=paper}"                  # form of the prototype score: paper, or code (the authors')
: "${ALPHA=0.5}"                        # weight of the own domain in the score (paper: unknown; code: 0.5)
: "${SEED=42}"                          # fixes which rows are cut from train (paper: 42)
: "${DATA_DIR=${beside}data}"           # as in stage 1
: "${MAX_LENGTH=128}"                   # tokens an example (paper: 128)
: "${EVAL_BATCH_SIZE=64}"               # examples a step where nothing is learnt
: "${PRECISION=auto}"                   # auto (bf16 where the device is faster in it, else fp32), fp32, bf16 or fp16
: "${DEVICE=auto}"                      # auto, cpu, cuda or cuda:<number>

# Elsewhere SOURCE belongs to stage 1, and may still be set from there.
if [[ $SUITE != custom ]]; then SOURCE=; fi

run scripts/process_data.py "$@"
