#!/usr/bin/env bash
# Stage 1: downloads a suite's archives, verifies and unpacks them, and checks their content.
# It writes data/raw/<suite>/, and with MODELS=1 also data/models/. The suite `sample` is generated, not downloaded.
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"                     # amazon, mnli, superglue, glue, sample or custom
: "${DOMAINS=}"                         # superglue, glue: domains to fetch, separated by commas or blanks; empty: all
: "${SOURCE=}"                          # folder, archive or URL with the archives; empty: their official addresses
: "${ALLOW_PARTIAL=0}"                  # 1: warn about unexpected content of an archive instead of stopping
: "${MODELS=0}" --fetch_models          # 1: also download teacher and student for use without network, and convert pickled weights
: "${TEACHER_MODEL=bert-base-uncased}"  # MODELS=1: hub name, or a folder to convert (paper: BERT-base)
: "${STUDENT_MODEL=huawei-noah/TinyBERT_General_4L_312D}"  # MODELS=1: hub name (paper: TinyBERT, 4 layers, 312 wide)
: "${SEED=42}"                          # sample: seed of the generated data
: "${DATA_DIR=${beside}data}"           # raw archives, processed suites and fetched models

run scripts/get_data.py "$@"
