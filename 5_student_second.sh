#!/usr/bin/env bash
# Stage 5: trains the student of stage 4 on the teacher's predictions for its domain, and keeps the best epoch on dev.
# It reads student_first/ and the teacher, and writes outputs/<suite>/seed<k>/<domain>/student_second/.
# Variables that depend on METHOD are empty by default; empty means the value of that method's paper.
# METHOD=finetune instead trains the same student on labels alone, for comparison, and writes student_finetune/.
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"                     # as in stage 1
: "${DOMAIN=}"                          # as in stage 4
: "${DOMAINS=}"                         # as in stage 2
: "${HOLD_OUT=}"                        # as in stage 4
: "${TRAIN_FRACTION=1}"                 # as in stage 3
: "${METHOD=metakd}"                    # metakd, mpdistil, or finetune (labels only, without teacher and stage 4)
: "${TEACHER=meta}"                     # teacher to learn from: meta, single, mix or mtl, as in stage 3; multi: mean prediction of all single teachers
: "${TEACHER_DOMAIN=}"                  # as in stage 4
: "${TEACHER_DIR=}" --teacher_root      # as in stage 4
: "${TEACHER_SEEDS=}"                   # seeds of runs, such as 1 2 3: the soft target is the mean prediction of their teachers; empty: this run's teacher only
: "${STUDENT_DIR=}" --student_root      # OUTPUT_DIR of another run whose student_first/ to use; empty: this run's
: "${STUDENT_MODEL=huawei-noah/TinyBERT_General_4L_312D}"  # finetune: initial model, as in stage 4
: "${STUDENT_LAYERS=}"                  # finetune: layers to keep, as in stage 4; empty: all (paper)
: "${STUDENT_INIT=pretrained}"          # finetune: initial weights, pretrained or teacher, as in stage 4
: "${SECOND_TRANSFER_SET=domain}"       # texts to train on: domain (paper), or all: also those of domains with the same labels, with the teacher's predictions as targets
: "${UNLABELLED=}"                      # file of further texts of the domain, as in stage 4, with the teacher's predictions as targets
: "${TRANSFER_WINDOWS=0}"               # further windows of long texts, as in stage 4, with the teacher's predictions as targets
: "${SOFT_LABELS=}"                     # file of probabilities that replace the teacher's predictions: a column per label, and guid or text; empty BETA_PKD and META_TEACHER_EVERY_EPOCH then mean 0
: "${ALPHA_SOFT=}"                      # weight of the soft loss; the label loss has the rest; empty: metakd 1, mpdistil 0.5
: "${SOFT_LOSS=}"                       # loss between predictions: ce, kl or mse; empty: metakd ce, mpdistil mse
: "${TEMPERATURE=}"                     # temperature of both models' predictions, a real number; empty: metakd 1, mpdistil 5
: "${USE_EXPERTISE_WEIGHTS=}"           # 1 weights examples by lambda, as in stage 4; empty: metakd 1, mpdistil 0
: "${EXPERTISE_POWER=1}"                # as in stage 4
: "${USE_SAMPLE_WEIGHTS=1}"             # as in stage 4
: "${CLASS_WEIGHTS=}"                   # as in stage 3
: "${LABEL_SMOOTHING=0}"                # as in stage 3
: "${BETA_PKD=}"                        # weight of the loss between layers' [CLS] states; empty: metakd 0, mpdistil 100
: "${PKD_LAYERS=first}"                 # teacher layers of that loss: first (authors' code), skip (every second), last
: "${META_TEACHER_EVERY_EPOCH=}"        # 1: train the meta-teacher after each epoch, with the three variables below; empty: metakd 0, mpdistil 1
: "${META_LOSS=collaborative}"          # as in stage 6
: "${META_EPOCHS=1}"                    # as in stage 6
: "${META_LR=1e-3}"                     # as in stage 6
: "${SECOND_EPOCHS=3}" --num_train_epochs  # training epochs (paper: 3)
: "${SECOND_LR=3e-5}" --learning_rate   # peak learning rate (paper: 3e-5)
: "${SECOND_SCHEDULE=linear}" --lr_scheduler_type  # learning-rate schedule: linear after a warm-up of 10 % (Meta-KD), or constant (MPDistil)
: "${LAYER_DECAY=1}"                    # as in stage 3
: "${PATIENCE=0}"                       # as in stage 3
: "${EPOCHS=}" --num_train_epochs       # as in stage 3
: "${LR=}" --learning_rate              # as in stage 3
: "${TEACHER_CACHE_GB=}"                # as in stage 4
: "${AVERAGE_CHECKPOINTS=0}"            # as in stage 3
: "${KEEP_START=0}"                     # 1: keep the student as it was before this stage if no epoch scores better on dev
: "${DROPOUT=}"                         # finetune: all dropout probabilities; empty: the defaults of the model family. Other students keep those of stage 4
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

launch scripts/distill_student.py --stage second "$@"
