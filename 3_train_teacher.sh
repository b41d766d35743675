#!/usr/bin/env bash
# Stage 3: trains the teacher. It reads data/<suite>/ and writes outputs/<suite>/seed<k>/teacher-<kind>/.
# With TEACHER_CHECKPOINT it trains nothing: it scores that classifier on dev and publishes it as the teacher (TEACHER=mix or single).
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"                     # as in stage 1
: "${TEACHER=meta}"                     # meta, or a baseline: single (one domain), mix (all domains pooled), mtl (one head per domain)
: "${DOMAIN=}"                          # single: the teacher's domain; all: every domain in turn; empty: the first; also the domain of TRAIN_FRACTION
: "${DOMAINS=}"                         # as in stage 2
: "${HOLD_OUT=}"                        # domain that a teacher of several domains is not trained on
: "${TRAIN_FRACTION=1}"                 # share of DOMAIN's train rows to use, stratified by label; other domains keep all of theirs
: "${TEACHER_MODEL=bert-base-uncased}"  # as in stage 2
: "${TEACHER_CHECKPOINT=}"              # fine-tuned classifier, by hub name or folder, to use as the teacher (mix or single) without training
: "${TEACHER_LABELS=}"                  # the suite's names for the labels of TEACHER_CHECKPOINT, if they differ: LABEL_0=negative,LABEL_1=positive
: "${TEACHER_EPOCHS=3}" --num_train_epochs  # training epochs (paper: 3)
: "${TEACHER_LR=2e-5}" --learning_rate  # peak learning rate (paper: 2e-5)
: "${TEACHER_SCHEDULE=linear}" --lr_scheduler_type  # learning-rate schedule: linear after a warm-up of 10 % (Meta-KD), or constant (MPDistil)
: "${LAYER_DECAY=1}"                    # factor on the learning rate from each layer to the layer below, down to the embeddings
: "${PATIENCE=0}"                       # stop after this many epochs in a row without a better score on dev; 0: never
: "${EPOCHS=}" --num_train_epochs       # overrides TEACHER_EPOCHS, FIRST_EPOCHS or SECOND_EPOCHS when set
: "${LR=}" --learning_rate              # overrides TEACHER_LR, FIRST_LR or SECOND_LR when set
: "${USE_SAMPLE_WEIGHTS=1}"             # meta: 1 weights each example by its prototype score (paper: 1)
: "${USE_DOMAIN_LOSS=1}"                # meta: 1 adds the domain-corruption loss (paper: 1)
: "${DOMAIN_LOSS_WEIGHT=0.5}"           # meta: weight of that loss, gamma 1 (paper: 0.5)
: "${DOMAIN_LABELS=false}"              # meta: labels of that loss: false (paper), permuted (authors' code), or reversal or uniform, which remove domain information
: "${AVERAGE_CHECKPOINTS=0}"            # number of last epochs whose weights are averaged; the average is kept if it is no worse on dev than the best epoch; 0: no averaging
: "${CLASS_WEIGHTS=}"                  # class weights of the label loss: balanced (inverse frequency), or name=weight,...; empty: equal
: "${LABEL_SMOOTHING=0}"                # share of a label that is spread evenly over the classes (paper: 0)
: "${DROPOUT=}"                         # all dropout probabilities; empty: the defaults of the model family, not those of config.json
: "${PROTOCOL=honest}"                  # honest: select checkpoints on dev; paper: as the suite's paper does, in superglue and glue on the reported set (optimistic)
: "${SEED=42}"                          # random seed of the run (paper: 42)
: "${DATA_DIR=${beside}data}"           # as in stage 1
: "${OUTPUT_DIR=${beside}outputs}" --output_root  # folder of all runs; stages 3 to 7 write to it
: "${MAX_LENGTH=128}"                   # as in stage 2
: "${BATCH_SIZE=32}" --per_device_train_batch_size  # examples per step and process (paper: 32)
: "${EVAL_BATCH_SIZE=64}" --per_device_eval_batch_size  # as in stage 2
: "${PRECISION=auto}"                   # as in stage 2
: "${DEVICE=auto}"                      # as in stage 2
: "${SAVE_STEPS=0}"                     # steps between further checkpoints within an epoch, so that an interruption loses less work; 0: save only after each epoch
: "${NPROC=1}" no flag                  # number of processes, one per device, started by torchrun
: "${REPORT_TO=none}"                   # none, tensorboard or wandb: logs loss terms, learning rate and scores, below the run's logs/

launch scripts/train_teacher.py "$@"
