#!/usr/bin/env bash
# Shows the whole pipeline on the generated suite `sample`: makes or reuses .venv, then runs every stage with
# configs/sample.sh, whose models two CPU cores train in minutes. Needs no network but the package index, once.
set -euo pipefail
unset CDPATH
cd "$(dirname "$0")/.."
if [[ $# -gt 0 ]]; then
    sed -n '2,3s/^# //p' "$0"
    echo "It takes no arguments; variables such as SEED=1 do work, and the stages take flags when run one by one."
    exit 1
fi
echo "Quickstart: all stages on the generated suite 'sample', from no data to a table of results."
bash scripts/environment.sh

export CONFIG=configs/sample.sh PYTHON=.venv/bin/python HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

stage() {  # script: run it and say how long it took
    local start=$SECONDS
    printf '\n=== %s%s\n' "${METHOD:+METHOD=$METHOD }" "$1"
    bash "$1"
    echo "=== $1 took $((SECONDS - start)) s"
}

bash 1_get_data.sh --check
stage 1_get_data.sh
stage 2_process_data.sh
stage 3_train_teacher.sh
stage 4_student_first.sh
stage 5_student_second.sh
METHOD=finetune EPOCHS=20 LR=1e-3 stage 5_student_second.sh   # the same student on labels alone, given more time
stage 6_curriculum.sh
stage 7_eval.sh

run=${OUTPUT_DIR:-outputs}/sample/seed${SEED:-42}
printf '\nDone in %s s. Everything is in %s:\n' "$SECONDS" "$run"
printf '  %-28s %s\n' report.html 'the whole run on one page: open it in a browser' \
    results.tsv 'every score, one a line' predictions/ 'what each model said of each example' \
    '<domain>/student_second/' 'the distilled student: opens with transformers.pipeline("text-classification", ...)' \
    '<domain>/curriculum/' 'the student that chose what to study next; rewards.png and domains.png show how it went'
echo "Next: README.md says how to run the papers' experiments and your own data."
