#!/usr/bin/env bash
# Searches the best values of variables of stages 3 to 6, by Optuna, judged by the selection score on dev and never on test:
#     bash scripts/search.sh SECOND_LR=1e-5..1e-4:log TEMPERATURE=1,2,4 TRIALS=30
# A range is low..high, low..high:log or a,b,c. A trial runs the stages that have these variables, and shares what is the same with others.
# The study is on disk: the same command goes on after an interruption, and several at a time share it. best.sh in its folder is a
# config file of the best settings, search.html the page. Other variables of the stages apply to all trials. See docs/search.md.
space=
for word in "$@"; do
    shift
    case $word in
        TRIALS=* | UNTIL=* | PRUNE=* | KEEP=* | CONFIG=* | SUITE=* | DOMAIN=* | SEED=* | TEACHER_DIR=* | STUDENT_DIR=* | DATA_DIR=* | OUTPUT_DIR=*)
            export "${word?}" ;;
        [A-Z]*=*) space=$space$word$'\n' ;;
        *) set -- "$@" "$word" ;;
    esac
done
source "$(dirname "$0")/common.sh"

: "${TRIALS=20}"                        # trials in all, those that are done included
: "${UNTIL=}"                           # stage whose dev score judges a trial: 3, 5 or 6; empty: 3 for variables of the teacher alone, 6 where one is of the curriculum alone, else 5
: "${PRUNE=1}"                          # 1: end a trial whose dev score falls below the median of others in the same epoch
: "${KEEP=0}"                           # 1: keep the checkpoint of every trial; 0: of the best one alone
: "${SUITE=amazon}"                     # as in stage 3
: "${DOMAIN=}"                          # as in stage 5
: "${SEED=42}"                          # as in stage 3
: "${TEACHER=meta}"                     # as in stage 5
: "${METHOD=metakd}"                    # as in stage 5
: "${STUDENT_INIT=pretrained}"          # as in stage 5
: "${PROTOCOL=honest}"                  # honest; paper would select on the reported rows, and is refused
: "${TEACHER_DIR=}" --teacher_root      # OUTPUT_DIR of a run whose teacher all trials take; empty: trials train one
: "${STUDENT_DIR=}" --student_root      # OUTPUT_DIR of a run whose student of the stage before all trials take; empty: trials make it
: "${DATA_DIR=${beside}data}"           # as in stage 1
: "${OUTPUT_DIR=${beside}outputs}" --output_root  # as in stage 3

run scripts/search.py --space "$space" --config "$CONFIG" "$@"
