#!/usr/bin/env bash
# Stage 4: the student learns the teacher's inner layers, and uses labels only to weight examples.
# It reads stage 3's teacher and writes outputs/<suite>/seed<k>/<domain>/student_first/.
# With FIRST=none, as in MPDistil, nothing is learnt: the initial student is passed on to stage 5 as it is.
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"                     # amazon, mnli, superglue, glue, sample or custom
: "${DOMAIN=}"                          # the student's domain; empty: the suite's first; all: one after the other
: "${DOMAINS=}"                         # domains in use, separated by commas or blanks; empty: all of the suite
: "${HOLD_OUT=}"                        # DOMAIN, if the teacher was trained without it; as in stage 3
: "${TRAIN_FRACTION=1}"                 # share of DOMAIN's train rows that is used, as in stage 3
: "${FIRST=metakd}"                     # metakd, or none: pass the initial student on as it is (MPDistil)
: "${TEACHER=meta}"                     # whom to learn from: meta, single, mix or mtl, as in stage 3; multi: here single
: "${TEACHER_DOMAIN=}"                  # single: whose teacher, for instance with HOLD_OUT; empty: DOMAIN's own
: "${TEACHER_DIR=}" --teacher_root      # OUTPUT_DIR of another run, whose teacher is used; empty: this run's
: "${STUDENT_MODEL=huawei-noah/TinyBERT_General_4L_312D}"  # hub name, folder or scratch:tiny (paper: this TinyBERT)
: "${STUDENT_LAYERS=}"                  # cut: 3 (the first three), spread:3, or e.g. 1,3,5; empty: all layers (paper)
: "${STUDENT_INIT=pretrained}"          # start from: pretrained, STUDENT_MODEL; teacher, a cut of the trained teacher
: "${LAYER_MAP=uniform}"                # teacher layers to learn from: uniform (paper), last, first, e.g. 3,6,9,12, or one alone for the last
: "${TRANSFER_SET=domain}"              # texts to learn on: domain (paper), or all domains' texts
: "${UNLABELLED=}"                      # file of further texts of the domain: one a line, a pair with a tab between
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
: "${LOSS_BALANCE=none}"               # each loss divided by its own size: initial (first batches), running (moving mean); none (paper)
: "${DROPOUT=}"                         # every dropout probability of the student; empty: the defaults of its family, or the teacher's
: "${FIRST_DROPOUT=1}"                   # 1: the student learns with its dropout (authors' code); 0: without, a step is faster
: "${FIRST_EPOCHS=10}" --num_train_epochs  # passes over the data (paper: 10)
: "${FIRST_LR=5e-5}" --learning_rate    # learning rate (paper: 5e-5)
: "${FIRST_SCHEDULE=constant}" --lr_scheduler_type  # learning rate over time: constant (paper), or linear after a warm-up of 10 %
: "${LAYER_DECAY=1}"                    # factor of the learning rate from a layer to the one below it, down to the embeddings
: "${PATIENCE=0}"                       # end after so many epochs in a row without a lower loss on dev's texts; 0: never
: "${EPOCHS=}" --num_train_epochs       # takes the place of FIRST_EPOCHS when set
: "${LR=}" --learning_rate              # takes the place of FIRST_LR when set
: "${TEACHER_CACHE_GB=}"                # most disk for what teachers said, so that they run once; empty: a fifth of what is free
: "${PROTOCOL=honest}"                  # selects checkpoints on dev; paper, in superglue and glue, on the reported set (optimistic)
: "${SEED=42}"                          # fixes everything on one machine (paper: 42)
: "${DATA_DIR=${beside}data}"           # raw archives, processed suites and fetched models
: "${OUTPUT_DIR=${beside}outputs}" --output_root  # what stages 3 to 7 write
: "${MAX_LENGTH=128}"                   # tokens an example (paper: 128)
: "${BATCH_SIZE=32}" --per_device_train_batch_size  # examples a step and process (paper: 32)
: "${EVAL_BATCH_SIZE=64}" --per_device_eval_batch_size  # examples a step where nothing is learnt
: "${PRECISION=auto}"                   # auto, fp32, bf16 or fp16
: "${DEVICE=auto}"                      # auto, cpu, cuda or cuda:<number>
: "${SAVE_STEPS=0}"                      # a checkpoint every so many steps too; 0: at the ends of epochs alone
: "${NPROC=1}" no flag                  # processes, one a device
: "${REPORT_TO=none}"                   # none, tensorboard or wandb

launch scripts/distill_student.py --stage first "$@"
