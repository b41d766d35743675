#!/usr/bin/env bash
# Stage 5: the student of stage 4 learns the teacher's predictions on its own domain; the best on dev is kept.
# It reads student_first/ and the teacher, and writes outputs/<suite>/seed<k>/<domain>/student_second/.
# What depends on METHOD is empty by default, which stands for that paper's value.
# METHOD=finetune trains the same student on the labels alone instead, for comparison, into student_finetune/.
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"                     # amazon, mnli, superglue, glue, sample or custom
: "${DOMAIN=}"                          # the student's domain; empty: the suite's first; all: one after the other
: "${DOMAINS=}"                         # domains in use, separated by commas or blanks; empty: all of the suite
: "${HOLD_OUT=}"                        # DOMAIN, if the teacher was trained without it; as in stage 3
: "${TRAIN_FRACTION=1}"                 # share of DOMAIN's train rows that is used, as in stage 3
: "${METHOD=metakd}"                    # metakd, mpdistil, or finetune: no teacher and no stage 4
: "${TEACHER=meta}"                     # whom to learn from: meta, single, mix or mtl, as in stage 3; multi: all single ones' mean prediction
: "${TEACHER_DOMAIN=}"                  # single: whose teacher, for instance with HOLD_OUT; empty: DOMAIN's own
: "${TEACHER_DIR=}" --teacher_root      # OUTPUT_DIR of another run, whose teacher is used; empty: this run's
: "${TEACHER_SEEDS=}"                   # seeds of runs whose teachers answer together, by their mean prediction; empty: this run's teacher alone
: "${STUDENT_DIR=}" --student_root      # OUTPUT_DIR of another run, whose student_first/ is used; empty: this run's
: "${STUDENT_MODEL=huawei-noah/TinyBERT_General_4L_312D}"  # finetune: what to start from, as in stage 4
: "${STUDENT_LAYERS=}"                  # finetune: cut it, as in stage 4; empty: leave it whole (paper)
: "${STUDENT_INIT=pretrained}"          # finetune: start from pretrained or teacher, as in stage 4
: "${SECOND_TRANSFER_SET=domain}"       # texts to learn on: domain (paper), or all that have its labels; the teacher answers the others
: "${UNLABELLED=}"                      # file of further texts of the domain, as in stage 4, which the teacher answers
: "${TRANSFER_WINDOWS=0}"               # further windows of long texts, as in stage 4, which the teacher answers
: "${ALPHA_SOFT=}"                      # share of the soft loss, the labels get the rest; empty: metakd 1, mpdistil 0.5
: "${SOFT_LOSS=}"                       # loss between predictions: ce, kl or mse; empty: metakd ce, mpdistil mse
: "${TEMPERATURE=}"                     # softens both predictions; a real number; empty: metakd 1, mpdistil 5
: "${USE_EXPERTISE_WEIGHTS=}"           # 1 weights examples by lambda, as in stage 4; empty: metakd 1, mpdistil 0
: "${EXPERTISE_POWER=1}"                # power that lambda is raised to; above 1 it tells examples apart more sharply (paper: 1)
: "${USE_SAMPLE_WEIGHTS=1}"             # 1: lambda reads the prototype scores (paper); 0: a score of 1 for each example
: "${CLASS_WEIGHTS=}"                  # of the loss on labels: balanced (inverse to frequency), or name=weight,...; empty: all alike
: "${LABEL_SMOOTHING=0}"                # share of a label that is spread evenly over the classes (paper: 0)
: "${BETA_PKD=}"                        # weight of the loss between layers' [CLS] states; empty: metakd 0, mpdistil 100
: "${PKD_LAYERS=first}"                 # teacher layers of that loss: first (authors' code), skip (every second), last
: "${META_TEACHER_EVERY_EPOCH=}"        # 1: the teacher learns back after each epoch; empty: metakd 0, mpdistil 1
: "${META_LOSS=collaborative}"          # then: its loss on quiz, collaborative or competitive, as in stage 6
: "${META_EPOCHS=1}"                    # then: passes over quiz (paper: 1)
: "${META_LR=1e-3}"                     # then: learning rate (paper: 1e-3)
: "${SECOND_EPOCHS=3}" --num_train_epochs  # passes over the data (paper: 3)
: "${SECOND_LR=3e-5}" --learning_rate   # peak learning rate (paper: 3e-5)
: "${SECOND_SCHEDULE=linear}" --lr_scheduler_type  # learning rate over time: linear after a warm-up of 10 % (Meta-KD), or constant (MPDistil)
: "${LAYER_DECAY=1}"                    # factor of the learning rate from a layer to the one below it, down to the embeddings
: "${PATIENCE=0}"                       # end after so many epochs in a row without a better score on dev; 0: never
: "${EPOCHS=}" --num_train_epochs       # takes the place of SECOND_EPOCHS when set
: "${LR=}" --learning_rate              # takes the place of SECOND_LR when set
: "${TEACHER_CACHE_GB=}"                # most disk for what teachers said, so that they run once; empty: a fifth of what is free
: "${AVERAGE_CHECKPOINTS=0}"            # average the weights of the last so many epochs, kept if no worse on dev than the best epoch; 0: never
: "${DROPOUT=}"                         # finetune: every dropout probability; empty: the defaults of the model's family. Other students have stage 4's
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

launch scripts/distill_student.py --stage second "$@"
