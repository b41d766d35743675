#!/usr/bin/env bash
# Reproduces a published table, every row, domain and seed, and prints ours beside the published numbers:
#     bash scripts/reproduce.sh metakd_amazon | metakd_mnli | mpdistil_superglue | mpdistil_glue [--dry_run] [--only_table] [--snakefile]
# A cell of the table is a run of the numbered stages. One that is done is skipped, so the same command goes on after an
# interruption. --dry_run counts them by state, with hours (--list_cells: each in a line); --only_table makes the table of those done,
# --snakefile a workflow for Snakemake (bash scripts/reproduce.sh metakd_amazon --snakefile > Snakefile).
# Variables of the stages (TEACHER_EPOCHS=1, PRECISION=bf16 ...) apply to all cells. See docs/reproduce.md.
table=
if [[ $# -gt 0 && $1 != -* ]]; then table=$1; shift; fi
case $table in   # a configuration for each published suite; another name is refused below
    metakd_amazon | metakd_mnli | mpdistil_superglue | mpdistil_glue) : "${CONFIG=configs/${table#*_}.sh}" ;;
esac
targets=${DOMAIN-}                    # a configuration's DOMAIN is for single stages
source "$(dirname "$0")/common.sh"

: "${SUITE=amazon}"                     # suite; the table's configuration names it
: "${ROWS=}"                            # rows to make, with those that they build on; empty: all
: "${SEEDS=1 2 3 4 5}"                  # one run of every row and domain for each
: "${DOMAIN=}" no flag                  # only these domains' students, separated by commas or blanks; empty or all: all
: "${DOMAINS=}"                         # domains that the stages use; empty: those of the table
: "${HOLD_OUT=}"                        # in place of the table: these domains, each held out of the teachers in turn
: "${TRAIN_FRACTION=}"                  # in place of the table: scores by these shares of DOMAIN's train rows, such as 0.01 0.1 1
: "${TEACHER_DOMAIN=}"                  # with HOLD_OUT: whose single teacher it is compared with; empty: the next domain's
: "${JOBS=1}"                           # cells that run side by side, on a GPU each where there are several
: "${RETRIES=0}"                        # times that a cell which was told to stop (status 143) goes on from its checkpoint in the same call; in a Snakefile, any that failed
: "${LAUNCHER=local}"                   # local; slurm submits the cells as jobs, JOBS of them at a time
: "${SLURM_OPTIONS=}"                   # slurm: what sbatch needs here, such as --partition=gpu --gres=gpu:1 --time=4:00:00
: "${SLURM_OPTIONS_DATA=}"              # more of them for the cell that makes the data; of an option given twice the last counts
: "${SLURM_OPTIONS_TEACHER=}"           # more of them for cells that train a teacher
: "${SLURM_OPTIONS_STUDENT=}"           # more of them for cells that train a student
: "${SLURM_OPTIONS_CURRICULUM=}"        # more of them for cells of stage 6
: "${UNDISTILLED_EPOCHS=}"              # epochs of the undistilled student; empty: those of stages 4 and 5 together with Meta-KD, else stage 5's
: "${UNDISTILLED_LR=}"                  # its learning rate; empty: that of stage 5
: "${FIRST_EPOCHS=10}" no flag          # passes of stage 4 (paper: 10)
: "${SECOND_EPOCHS=3}" no flag          # passes of stage 5 (paper: 3)
: "${EPOCHS=}" no flag                  # takes the place of both when set
: "${PROTOCOL=honest}"                  # selects checkpoints on dev; paper, with MPDistil, on the reported set (optimistic)
: "${TEACHER_MODEL=bert-base-uncased}"  # as in stage 3
: "${STUDENT_INIT=pretrained}"          # as in stage 4
: "${TRANSFER_SET=domain}"              # as in stage 4
: "${DEVICE=auto}"                      # as in stage 2
: "${DATA_DIR=${beside}data}"           # as in stage 1
: "${OUTPUT_DIR=${beside}outputs}" --output_root  # as in stage 3

if [[ -z $table ]]; then fail "name a table: metakd_amazon, metakd_mnli, mpdistil_superglue or mpdistil_glue"; fi
if [[ $targets == all ]]; then targets=; fi

run scripts/reproduce.py --name "$table" --targets "$targets" --config "$CONFIG" \
    --stage_epochs "$(stage_value EPOCHS FIRST_EPOCHS) $(stage_value EPOCHS SECOND_EPOCHS)" "$@"
