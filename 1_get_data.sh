#!/usr/bin/env bash
# Stage 1: fetches a suite's archives, verifies them, unpacks them and checks what they hold.
# It writes data/raw/<suite>/, and with MODELS=1 also data/models/. The suite `sample` is generated, not fetched.
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"                     # amazon, mnli, superglue, glue, sample or custom
: "${DOMAINS=}"                         # superglue, glue: domains to fetch, separated by commas or blanks; empty: all
: "${SOURCE=}"                          # folder, archive or URL to take the archives from; empty: the known addresses
: "${ALLOW_PARTIAL=0}"                  # 1: content that differs from what is known is a warning, not an error
: "${MODELS=0}" --fetch_models          # 1: also fetch teacher and student, for machines without network; converts pickled weights
: "${TEACHER_MODEL=bert-base-uncased}"  # MODELS=1: hub name, or a folder to convert (paper: BERT-base)
: "${STUDENT_MODEL=huawei-noah/TinyBERT_General_4L_312D}"  # MODELS=1: hub name (paper: TinyBERT, 4 layers, 312 wide)
: "${SEED=42}"                          # sample: fixes what is generated
: "${DATA_DIR=${beside}data}"           # raw archives, processed suites and fetched models

run scripts/get_data.py "$@"
