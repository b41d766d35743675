#!/usr/bin/env bash
# Stage 4: trains the student to match the teacher's inner layers. Labels are only used to weight examples.
# It reads stage 3's teacher and writes outputs/<suite>/seed<k>/<domain>/student_first/.
# With FIRST=none, as in MPDistil, it trains nothing and publishes the initial student for stage 5.
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"                     # as in stage 1
: "${DOMAIN=}"                          # the student's domain; empty: the suite's first; all: every domain in turn
: "${DOMAINS=}"                         # as in stage 2
: "${HOLD_OUT=}"                        # the student's domain, if the teacher was trained without it; as HOLD_OUT of stage 3
: "${TRAIN_FRACTION=1}"                 # as in stage 3
: "${FIRST=metakd}"                     # metakd, or none: publish the initial student without training (MPDistil)
: "${TEACHER=meta}"                     # teacher to learn from: meta, single, mix or mtl, as in stage 3; multi: single in this stage
: "${TEACHER_DOMAIN=}"                  # single: domain of the teacher, for instance with HOLD_OUT; empty: the student's
: "${TEACHER_DIR=}" --teacher_root      # OUTPUT_DIR of another run whose teacher to use; empty: this run's
: "${STUDENT_MODEL=huawei-noah/TinyBERT_General_4L_312D}"  # hub name, folder or scratch:tiny (paper: this TinyBERT)
: "${STUDENT_LAYERS=}"                  # layers to keep: 3 (the first three), spread:3 (evenly spaced), or a list such as 1,3,5; empty: all (paper)
: "${STUDENT_INIT=pretrained}"          # initial weights: pretrained (those of STUDENT_MODEL), or teacher (STUDENT_LAYERS of the trained teacher)
: "${LAYER_MAP=uniform}"                # teacher layer of each student layer: uniform (paper), last, first, or a list such as 3,6,9,12; a single layer is mapped to the student's last (-1: the teacher's last)
: "${TRANSFER_SET=domain}"              # texts to train on: domain (paper), or all: those of every domain that the teacher has labels for
: "${UNLABELLED=}"                      # file of further texts of the domain: one per line, with a tab inside a pair; or CSV, JSON lines or Parquet with the column text or text_a, and text_b for pairs
: "${TRANSFER_WINDOWS=0}"               # maximum number of further windows to train on from each text longer than MAX_LENGTH
: "${ATTENTION_TARGET=scores}"          # attention to match: scores (before softmax), probs, or relations (for every model family and width)
: "${RELATION_HEADS=}"                  # relations: number of heads that states are split into; empty: the largest up to 48 that divides all widths
: "${USE_EXPERTISE_WEIGHTS=1}"          # 1 weights each example by the teacher's expertise, lambda (paper: 1)
: "${EXPERTISE_POWER=1}"                # exponent of lambda; above 1 the weights differ more (paper: 1)
: "${USE_SAMPLE_WEIGHTS=1}"             # 1: lambda uses the prototype scores (paper); 0: a score of 1 for each example
: "${EMBEDDING_WEIGHT=1}"               # weight of the embedding loss (paper: 1)
: "${HIDDEN_WEIGHT=1}"                  # weight of the hidden-state loss (paper: 1)
: "${ATTENTION_WEIGHT=1}"               # weight of the attention loss (paper: 1)
: "${TKD_WEIGHT=0.5}"                   # weight of the transferable-knowledge loss, gamma 2 (paper: 0.5)
: "${LOSS_BALANCE=none}"                # divides each loss by its own size, at least 1/10000 of the largest: initial (mean of the first batches), running (moving mean), or none (paper)
: "${DROPOUT=}"                         # all dropout probabilities of the student; empty: the defaults of its model family, or the teacher's
: "${FIRST_DROPOUT=1}"                  # 1: train with the student's dropout (authors' code); 0: without dropout, which is faster
: "${FIRST_EPOCHS=10}" --num_train_epochs  # training epochs (paper: 10)
: "${FIRST_LR=5e-5}" --learning_rate    # learning rate (paper: 5e-5)
: "${FIRST_SCHEDULE=constant}" --lr_scheduler_type  # learning-rate schedule: constant (paper), or linear after a warm-up of 10 %
: "${LAYER_DECAY=1}"                    # as in stage 3
: "${PATIENCE=0}"                       # stop after this many epochs in a row without a lower loss on dev's texts; 0: never
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
