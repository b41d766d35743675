#!/usr/bin/env bash
# Stage 4: the student learns the teacher's inner layers, and uses labels only to weight examples.
# It reads stage 3's teacher and writes outputs/<suite>/seed<k>/<domain>/student_first/.
# With FIRST=none, as in MPDistil, nothing is learnt: the initial student is passed on to stage 5 as it is.
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"                     # as in stage 1
: "${DOMAIN=}"                          # the student's domain; empty: the suite's first; all: one after the other
: "${DOMAINS=}"                         # as in stage 2
: "${HOLD_OUT=}"                        # DOMAIN, if the teacher was trained without it; as in stage 3
: "${TRAIN_FRACTION=1}"                 # as in stage 3
: "${FIRST=metakd}"                     # metakd, or none: pass the initial student on as it is (MPDistil)
: "${TEACHER=meta}"                     # whom to learn from: meta, single, mix or mtl, as in stage 3; multi: here single
: "${TEACHER_DOMAIN=}"                  # single: whose teacher, for instance with HOLD_OUT; empty: DOMAIN's own
: "${TEACHER_DIR=}" --teacher_root      # OUTPUT_DIR of another run, whose teacher is used; empty: this run's
: "${STUDENT_MODEL=huawei-noah/TinyBERT_General_4L_312D}"  # hub name, folder or scratch:tiny (paper: this TinyBERT)
: "${STUDENT_LAYERS=}"                  # cut: 3 (the first three), spread:3, or e.g. 1,3,5; empty: all layers (paper)
: "${STUDENT_INIT=pretrained}"          # start from: pretrained, STUDENT_MODEL; teacher, a cut of the trained teacher
: "${LAYER_MAP=uniform}"                # teacher layers to learn from: uniform (paper), last, first, e.g. 3,6,9,12, or one alone for the student's last (-1: the teacher's last)
: "${TRANSFER_SET=domain}"              # texts to learn on: domain (paper), or all, those of every domain that the teacher has labels for
: "${UNLABELLED=}"                      # file of further texts of the domain: one a line, a pair with a tab between; of CSV, JSON lines and Parquet the columns text or text_a, and text_b
: "${TRANSFER_WINDOWS=0}"               # learn on so many further windows of each text longer than MAX_LENGTH, at most
: "${ATTENTION_TARGET=scores}"          # attention to match: scores before softmax, probs, or relations (of every family and width)
: "${RELATION_HEADS=}"                  # relations: heads that states are split into; empty: as many as 48 that divide all widths
: "${USE_EXPERTISE_WEIGHTS=1}"          # 1 weights each example by the teacher's expertise, lambda (paper: 1)
: "${EXPERTISE_POWER=1}"                # power that lambda is raised to; above 1 it tells examples apart more sharply (paper: 1)
: "${USE_SAMPLE_WEIGHTS=1}"             # 1: lambda reads the prototype scores (paper); 0: a score of 1 for each example
: "${EMBEDDING_WEIGHT=1}"               # weight of the embedding loss (paper: 1)
: "${HIDDEN_WEIGHT=1}"                  # weight of the hidden-state loss (paper: 1)
: "${ATTENTION_WEIGHT=1}"               # weight of the attention loss (paper: 1)
: "${TKD_WEIGHT=0.5}"                   # weight of the transferable-knowledge loss, gamma 2 (paper: 0.5)
: "${LOSS_BALANCE=none}"                # each loss divided by its own size, at least 1/10000 of the largest's: initial (first batches), running (moving mean); none (paper)
: "${DROPOUT=}"                         # every dropout probability of the student; empty: the defaults of its family, or the teacher's
: "${FIRST_DROPOUT=1}"                  # 1: the student learns with its dropout (authors' code); 0: without, a step is faster
: "${FIRST_EPOCHS=10}" --num_train_epochs  # passes over the data (paper: 10)
: "${FIRST_LR=5e-5}" --learning_rate    # learning rate (paper: 5e-5)
: "${FIRST_SCHEDULE=constant}" --lr_scheduler_type  # learning rate over time: constant (paper), or linear after a warm-up of 10 %
: "${LAYER_DECAY=1}"                    # as in stage 3
: "${PATIENCE=0}"                       # end after so many epochs in a row without a lower loss on dev's texts; 0: never
: "${EPOCHS=}" --num_train_epochs       # as in stage 3
: "${LR=}" --learning_rate              # as in stage 3
: "${TEACHER_CACHE_GB=}"                # disk limit (GB) for cached teacher outputs; 0: keep none; empty: a fifth of what is free
: "${PROTOCOL=honest}"                  # as in stage 3
: "${SEED=42}"                          # as in stage 3
: "${DATA_DIR=${beside}data}"           # as in stage 1
: "${OUTPUT_DIR=${beside}outputs}" --output_root  # as in stage 3
: "${MAX_LENGTH=128}"                   # as in stage 2
: "${BATCH_SIZE=32}" --per_device_train_batch_size  # as in stage 3
: "${EVAL_BATCH_SIZE=64}" --per_device_eval_batch_size  # as in stage 2
: "${PRECISION=auto}"                   # as in stage 2
: "${DEVICE=auto}"                      # as in stage 2
: "${SAVE_STEPS=0}"                     # as in stage 3
: "${NPROC=1}" no flag                  # as in stage 3
: "${REPORT_TO=none}"                   # as in stage 3

launch scripts/distill_student.py --stage first "$@"
