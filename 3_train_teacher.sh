#!/usr/bin/env bash
# Stage 3: trains the teacher. It reads data/<suite>/ and writes outputs/<suite>/seed<k>/teacher-<kind>/.
# With TEACHER_CHECKPOINT nothing is trained: that classifier is scored on dev and becomes the teacher (TEACHER=mix or single).
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"                     # as in stage 1
: "${TEACHER=meta}"                     # meta, or a baseline: single (one domain), mix (all pooled), mtl (a head each)
: "${DOMAIN=}"                          # single: the teacher's domain; all: one after the other; TRAIN_FRACTION is of it; empty: the first
: "${DOMAINS=}"                         # as in stage 2
: "${HOLD_OUT=}"                        # a domain that the teacher of several domains never sees
: "${TRAIN_FRACTION=1}"                 # share of DOMAIN's train rows that is used, of each label; other domains keep theirs
: "${TEACHER_MODEL=bert-base-uncased}"  # as in stage 2
: "${TEACHER_CHECKPOINT=}"              # a fine-tuned classifier, by hub name or folder, that becomes the teacher (mix or single) without training
: "${TEACHER_LABELS=}"                  # labels of TEACHER_CHECKPOINT that have other names than the suite's: LABEL_0=negative,LABEL_1=positive
: "${TEACHER_EPOCHS=3}" --num_train_epochs  # passes over the data (paper: 3)
: "${TEACHER_LR=2e-5}" --learning_rate  # peak learning rate (paper: 2e-5)
: "${TEACHER_SCHEDULE=linear}" --lr_scheduler_type  # learning rate over time: linear after a warm-up of 10 % (Meta-KD), or constant (MPDistil)
: "${LAYER_DECAY=1}"                    # factor of the learning rate from a layer to the one below it, down to the embeddings
: "${PATIENCE=0}"                       # end after so many epochs in a row without a better score on dev; 0: never
: "${EPOCHS=}" --num_train_epochs       # takes the place of TEACHER_EPOCHS, FIRST_EPOCHS or SECOND_EPOCHS when set
: "${LR=}" --learning_rate              # takes the place of TEACHER_LR, FIRST_LR or SECOND_LR when set
: "${USE_SAMPLE_WEIGHTS=1}"             # meta: 1 weights each example by its prototype score (paper: 1)
: "${USE_DOMAIN_LOSS=1}"                # meta: 1 adds the domain-corruption loss (paper: 1)
: "${DOMAIN_LOSS_WEIGHT=0.5}"           # meta: weight of that loss, gamma 1 (paper: 0.5)
: "${DOMAIN_LABELS=false}"              # meta: labels of that loss: false (paper), permuted (the authors' code); reversal, uniform: drive the domain out
: "${AVERAGE_CHECKPOINTS=0}"            # average the weights of the last so many epochs, kept if no worse on dev than the best epoch; 0: never
: "${CLASS_WEIGHTS=}"                  # of the loss on labels: balanced (inverse to frequency), or name=weight,...; empty: all alike
: "${LABEL_SMOOTHING=0}"                # share of a label that is spread evenly over the classes (paper: 0)
: "${DROPOUT=}"                         # every dropout probability; empty: the defaults of the model's family, whatever its config.json says
: "${PROTOCOL=honest}"                  # selects checkpoints on dev; paper: on what the suite's paper does, in superglue and glue the reported set (optimistic)
: "${SEED=42}"                          # fixes everything on one machine (paper: 42)
: "${DATA_DIR=${beside}data}"           # as in stage 1
: "${OUTPUT_DIR=${beside}outputs}" --output_root  # folder of all runs, which stages 3 to 7 write
: "${MAX_LENGTH=128}"                   # as in stage 2
: "${BATCH_SIZE=32}" --per_device_train_batch_size  # examples a step and process (paper: 32)
: "${EVAL_BATCH_SIZE=64}" --per_device_eval_batch_size  # as in stage 2
: "${PRECISION=auto}"                   # as in stage 2
: "${DEVICE=auto}"                      # as in stage 2
: "${SAVE_STEPS=0}"                     # a checkpoint every so many steps too, which bounds what an interruption costs; 0: at the ends of epochs alone
: "${NPROC=1}" no flag                  # processes, one a device, started by torchrun
: "${REPORT_TO=none}"                   # none, tensorboard or wandb: losses by term, learning rate and scores, below the logs/ of the run

launch scripts/train_teacher.py "$@"
