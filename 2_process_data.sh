#!/usr/bin/env bash
# Stage 2: converts raw files to train, quiz, dev and test TSVs, and computes the prototype scores of train rows.
# It reads data/raw/<suite>/ and writes data/<suite>/ with suite.json.
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"                     # as in stage 1
: "${DOMAINS=}"                         # domains to use, separated by commas or blanks; empty: all of the suite
: "${SOURCE=}"                          # custom: a file, a folder, or hub:<data set>; CSV, TSV, JSON lines, Parquet; empty: data/raw/custom
: "${TEXT_A_COLUMN=}"                   # custom: column of the text; empty: text_a
: "${TEXT_B_COLUMN=}"                   # custom: column of the second text of a pair; empty: text_b, if there is one
: "${LABEL_COLUMN=}"                    # custom: column of the label; empty: label
: "${DOMAIN_COLUMN=}"                   # custom: column of the domain; empty: domain; without such a column all rows are one domain
: "${DELIMITER=}"                       # custom: separator of a CSV file, '\t' for a tab; empty: comma, semicolon, tab or |, as found in the header
: "${QUIZ_FRACTION=}"                   # share of train that becomes quiz; empty: 0.1, but 0 with PROTOCOL=paper in all suites except superglue and glue
: "${DEV_FRACTION=0.1}"                 # custom: share of the rows that becomes dev if the data has no dev split
: "${TEST_FRACTION=0.1}"                # custom: share of the rows that becomes test if the data has no test split
: "${GROUP_BY=auto}"                    # custom: keeps rows with the same text in one split, by text_a, text_b, none, or auto: text_a of pairs
: "${GROUP_COLUMN=}"                    # custom: keeps rows with the same value of this column in one split, such as author; replaces GROUP_BY
: "${PROTOCOL=honest}"                  # honest or paper; it is recorded, and sets the default of QUIZ_FRACTION
: "${SKIP_BAD_ROWS=0}"                  # 1: drop bad rows and count them, instead of stopping
: "${DEDUPLICATE=0}"                    # 1: drop train and quiz rows whose texts are also in test or dev
: "${TEACHER_MODEL=bert-base-uncased}" no flag  # hub name, folder, scratch:tiny or scratch:mini (paper: BERT-base)
: "${EMBEDDING_MODEL=$TEACHER_MODEL}"   # encoder of the prototype scores, not fine-tuned (paper: the teacher's)
: "${PROTOTYPE=paper}"                  # form of the prototype score: paper, or code (the authors')
: "${ALPHA=0.5}"                        # weight of the row's own domain in the score (paper: unknown; code: 0.5)
: "${SEED=42}"                          # fixes which rows are cut from train (paper: 42)
: "${DATA_DIR=${beside}data}"           # as in stage 1
: "${MAX_LENGTH=128}"                   # tokens per example (paper: 128)
: "${EVAL_BATCH_SIZE=64}"               # examples per batch of inference
: "${PRECISION=auto}"                   # auto (bf16 where the device is faster in it, else fp32), fp32, bf16 or fp16
: "${DEVICE=auto}"                      # auto, cpu, cuda or cuda:<number>

# With other suites SOURCE is a variable of stage 1, and may still be exported.
if [[ $SUITE != custom ]]; then SOURCE=; fi

run scripts/process_data.py "$@"
