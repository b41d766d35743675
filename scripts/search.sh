#!/usr/bin/env bash
# Searches for the best values of variables of stages 3 to 6 with Optuna, by the selection score on dev, never on test:
#     bash scripts/search.sh SECOND_LR=1e-5..1e-4:log TEMPERATURE=1,2,4 TRIALS=30
# A range is low..high, low..high:log or a,b,c. A trial runs the stages that have these variables; trials share identical stages.
# The study is stored on disk: the same command continues it after an interruption, and several processes can share it. Its folder
# contains best.sh, a config file with the best settings, and search.html, a report. Other stage variables apply to all trials. See docs/search.md.
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

: "${TRIALS=20}"                        # total number of trials, including finished ones
: "${UNTIL=}"                           # stage whose dev score judges a trial: 3, 5 or 6; empty: 3 if all variables are the teacher's, 6 if one is the curriculum's, else 5
: "${PRUNE=1}"                          # 1: end a trial whose dev score is below the median of other trials at the same epoch
: "${KEEP=0}"                           # 1: keep the checkpoints of all trials; 0: only those of the best
: "${SUITE=amazon}"                     # as in stage 3
: "${DOMAIN=}"                          # as in stage 5
: "${SEED=42}"                          # as in stage 3
: "${TEACHER=meta}"                     # as in stage 5
: "${METHOD=metakd}"                    # as in stage 5
: "${STUDENT_INIT=pretrained}"          # as in stage 5
: "${PROTOCOL=honest}"                  # honest; paper is refused, as it would select on the reported rows
: "${TEACHER_DIR=}" --teacher_root      # OUTPUT_DIR of a run whose teacher all trials use; empty: trials train one
: "${STUDENT_DIR=}" --student_root      # OUTPUT_DIR of a run whose student of the stage before all trials use; empty: trials train one
: "${DATA_DIR=${beside}data}"           # as in stage 1
: "${OUTPUT_DIR=${beside}outputs}" --output_root  # as in stage 3

run scripts/search.py --space "$space" --config "$CONFIG" "$@"
