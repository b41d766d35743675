#!/usr/bin/env bash
# Stage 5: the student of stage 4 learns the teacher's predictions on its own domain; the best on dev is kept.
# It reads student_first/ and the teacher, and writes outputs/<suite>/seed<k>/<domain>/student_second/.
# What depends on METHOD is empty by default, which stands for that paper's value.
# METHOD=finetune trains the same student on the labels alone instead, for comparison, into student_finetune/.
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"                     # as in stage 1
: "${DOMAIN=}"                          # as in stage 4
: "${DOMAINS=}"                         # as in stage 2
: "${HOLD_OUT=}"                        # as in stage 4
: "${TRAIN_FRACTION=1}"                 # as in stage 3
: "${METHOD=metakd}"                    # metakd, mpdistil, or finetune: no teacher and no stage 4
: "${TEACHER=meta}"                     # whom to learn from: meta, single, mix or mtl, as in stage 3; multi: all single ones' mean prediction
: "${TEACHER_DOMAIN=}"                  # as in stage 4
: "${TEACHER_DIR=}" --teacher_root      # as in stage 4
: "${TEACHER_SEEDS=}"                   # seeds of runs, such as 1 2 3, whose teachers' mean prediction is the soft target; empty: this run's teacher alone
: "${STUDENT_DIR=}" --student_root      # OUTPUT_DIR of another run, whose student_first/ is used; empty: this run's
: "${STUDENT_MODEL=huawei-noah/TinyBERT_General_4L_312D}"  # finetune: what to start from, as in stage 4
: "${STUDENT_LAYERS=}"                  # finetune: cut it, as in stage 4; empty: leave it whole (paper)
: "${STUDENT_INIT=pretrained}"          # finetune: start from pretrained or teacher, as in stage 4
: "${SECOND_TRANSFER_SET=domain}"       # texts to learn on: domain (paper), or all that have its labels; the teacher answers the others
: "${UNLABELLED=}"                      # file of further texts of the domain, as in stage 4, which the teacher answers
: "${TRANSFER_WINDOWS=0}"               # further windows of long texts, as in stage 4, which the teacher answers
: "${SOFT_LABELS=}"                     # file of probabilities by guid or text, a column a label, for the teacher's predictions; BETA_PKD and META_TEACHER_EVERY_EPOCH are then 0 if empty
: "${ALPHA_SOFT=}"                      # share of the soft loss, the labels get the rest; empty: metakd 1, mpdistil 0.5
: "${SOFT_LOSS=}"                       # loss between predictions: ce, kl or mse; empty: metakd ce, mpdistil mse
: "${TEMPERATURE=}"                     # softens both predictions; a real number; empty: metakd 1, mpdistil 5
: "${USE_EXPERTISE_WEIGHTS=}"           # 1 weights examples by lambda, as in stage 4; empty: metakd 1, mpdistil 0
: "${EXPERTISE_POWER=1}"                # as in stage 4
: "${USE_SAMPLE_WEIGHTS=1}"             # as in stage 4
: "${CLASS_WEIGHTS=}"                   # as in stage 3
: "${LABEL_SMOOTHING=0}"                # as in stage 3
: "${BETA_PKD=}"                        # weight of the loss between layers' [CLS] states; empty: metakd 0, mpdistil 100
: "${PKD_LAYERS=first}"                 # teacher layers of that loss: first (authors' code), skip (every second), last
: "${META_TEACHER_EVERY_EPOCH=}"        # 1: the teacher learns back after each epoch, with the three below; empty: metakd 0, mpdistil 1
: "${META_LOSS=collaborative}"          # as in stage 6
: "${META_EPOCHS=1}"                    # as in stage 6
: "${META_LR=1e-3}"                     # as in stage 6
: "${SECOND_EPOCHS=3}" --num_train_epochs  # passes over the data (paper: 3)
: "${SECOND_LR=3e-5}" --learning_rate   # peak learning rate (paper: 3e-5)
: "${SECOND_SCHEDULE=linear}" --lr_scheduler_type  # learning rate over time: linear after a warm-up of 10 % (Meta-KD), or constant (MPDistil)
: "${LAYER_DECAY=1}"                    # as in stage 3
: "${PATIENCE=0}"                       # as in stage 3
: "${EPOCHS=}" --num_train_epochs       # as in stage 3
: "${LR=}" --learning_rate              # as in stage 3
: "${TEACHER_CACHE_GB=}"                # as in stage 4
: "${AVERAGE_CHECKPOINTS=0}"            # as in stage 3
: "${DROPOUT=}"                         # finetune: every dropout probability; empty: the defaults of the model's family. Other students have stage 4's
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
