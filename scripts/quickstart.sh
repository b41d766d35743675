#!/usr/bin/env bash
# Demonstrates the pipeline on the generated suite `sample`: creates or reuses .venv, then runs every stage with
# configs/sample.sh, which takes minutes on two CPU cores. The first run needs a package index; nothing else is downloaded.
set -euo pipefail
unset CDPATH
root=$(cd "$(dirname "$0")/.." && pwd)
beside=$root/   # where data/ and outputs/ are, as in the stages
if [[ $PWD -ef $root ]]; then beside=; fi
if [[ $# -gt 0 ]]; then
    sed -n '2,3s/^# //p' "$0"
    echo "It takes no arguments. Variables such as SEED=1 work; to pass flags, run the stages one by one."
    exit 1
fi
echo "Quickstart: all stages on the generated suite 'sample', from no data to a table of results."
bash "$root/scripts/environment.sh" stages

export CONFIG=${beside}configs/sample.sh PYTHON=${beside}.venv/bin/python HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

# Runs the stages like `bash 1_get_data.sh` and so on, but loads the libraries only once. The second stage 5 trains the same student
# on labels alone, for more epochs.
PYTHONPATH=${beside}src "$PYTHON" "${beside}scripts/in_turn.py" 1_get_data.sh 2_process_data.sh 3_train_teacher.sh 4_student_first.sh \
    5_student_second.sh METHOD=finetune EPOCHS=12 LR=1e-3 5_student_second.sh 6_curriculum.sh 7_eval.sh

run=${OUTPUT_DIR:-${beside}outputs}/sample/seed${SEED:-42}
printf '\nDone in %s s. All results are in %s:\n' "$SECONDS" "$run"
printf '  %-28s %s\n' report.html 'the whole run on one page: open it in a browser' \
    results.tsv 'all scores, one per line' predictions/ 'the prediction of each model for each example' \
    '<domain>/student_second/' 'the distilled student: load it with transformers.pipeline("text-classification", ...)' \
    '<domain>/curriculum/' 'the student after the curriculum, with plots: rewards.png and domains.png'
echo "Next: see README.md for the papers' experiments and for your own data."
