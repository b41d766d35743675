#!/usr/bin/env bash
# Reproduces every row, domain and seed of a published table and prints the results beside the published numbers:
#     bash scripts/reproduce.sh metakd_amazon | metakd_mnli | mpdistil_superglue | mpdistil_glue [--dry_run] [--only_table] [--snakefile]
# A cell of the table is a run of the numbered stages. Finished cells are skipped, so the same command continues after an
# interruption. --dry_run counts cells by state, with hours (--list_cells: one line per cell). --only_table makes the table of finished
# cells. --snakefile writes a workflow for Snakemake (bash scripts/reproduce.sh metakd_amazon --snakefile > Snakefile).
# Variables of the stages (TEACHER_EPOCHS=1, PRECISION=bf16 ...) apply to all cells. See docs/reproduce.md.
table=
if [[ $# -gt 0 && $1 != -* ]]; then table=$1; shift; fi
case $table in   # the config file of the table's suite; other names are refused below
    metakd_amazon | metakd_mnli | mpdistil_superglue | mpdistil_glue) : "${CONFIG=configs/${table#*_}.sh}" ;;
esac
targets=${DOMAIN-}                    # the config file's DOMAIN is for single stages
source "$(dirname "$0")/common.sh"

: "${SUITE=amazon}"                     # suite; set by the table's configuration
: "${ROWS=}"                            # rows to run, with the rows that they depend on; empty: all
: "${SEEDS=1 2 3 4 5}"                  # seeds; every row and domain is run once for each
: "${DOMAIN=}" no flag                  # domains whose students to train, separated by commas or blanks; empty or all: all
: "${DOMAINS=}"                         # domains that the stages use; empty: those of the table
: "${HOLD_OUT=}"                        # runs this setting instead of the table: each of these domains in turn is held out of the teachers' training
: "${TRAIN_FRACTION=}"                  # runs this setting instead of the table: scores by these shares of DOMAIN's train rows, such as 0.01 0.1 1
: "${TEACHER_DOMAIN=}"                  # with HOLD_OUT: domain whose single teacher is the baseline; empty: the next domain
: "${JOBS=1}"                           # number of cells to run at a time, each on its own GPU if there are several
: "${RETRIES=0}"                        # times that a cell stopped by a signal (status 143) is resumed in the same call; in a Snakefile, any failed cell
: "${LAUNCHER=local}"                   # local; slurm submits the cells as jobs, JOBS of them at a time
: "${SLURM_OPTIONS=}"                   # slurm: options of sbatch, such as --partition=gpu --gres=gpu:1 --time=4:00:00
: "${SLURM_OPTIONS_DATA=}"              # further options for the cell that makes the data; the last of repeated options counts
: "${SLURM_OPTIONS_TEACHER=}"           # further options for cells that train a teacher
: "${SLURM_OPTIONS_STUDENT=}"           # further options for cells that train a student
: "${SLURM_OPTIONS_CURRICULUM=}"        # further options for cells of stage 6
: "${UNDISTILLED_EPOCHS=}"              # epochs of the undistilled student; empty: in Meta-KD's tables those of stages 4 and 5 together, else those of stage 5
: "${UNDISTILLED_LR=}"                  # learning rate of the undistilled student; empty: that of stage 5
: "${FIRST_EPOCHS=10}" no flag          # epochs of stage 4 (paper: 10)
: "${SECOND_EPOCHS=3}" no flag          # epochs of stage 5 (paper: 3)
: "${EPOCHS=}" no flag                  # overrides both when set
: "${PROTOCOL=honest}"                  # honest: select checkpoints on dev; paper: in MPDistil's tables on the reported set (optimistic)
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
