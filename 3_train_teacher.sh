#!/usr/bin/env bash
# Stage 3: trains the teacher. It reads data/<suite>/ and writes outputs/<suite>/seed<k>/teacher-<kind>/.
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"                     # amazon, mnli, superglue, glue, sample or custom
: "${TEACHER=meta}"                     # meta, or a baseline: single (one domain), mix (all pooled), mtl (a head each)
: "${DOMAIN=}"                          # single: the teacher's domain; all: one after the other; TRAIN_FRACTION is of it; empty: the first
: "${DOMAINS=}"                         # domains to train on, separated by commas or blanks; empty: all of the suite
: "${HOLD_OUT=}"                        # a teacher of several domains is not trained on this one
: "${TRAIN_FRACTION=1}"                 # share of DOMAIN's train rows that is used; the other domains keep theirs
: "${TEACHER_MODEL=bert-base-uncased}"  # hub name, folder, scratch:tiny or scratch:mini (paper: BERT-base)
: "${TEACHER_EPOCHS=3}"                 # passes over the data (paper: 3)
: "${TEACHER_LR=2e-5}"                  # peak learning rate (paper: 2e-5)
: "${TEACHER_SCHEDULE=linear}"          # learning rate over time: linear after a warm-up of 10 % (Meta-KD), or constant (MPDistil)
: "${EPOCHS=}"                          # takes the place of TEACHER_EPOCHS when set
: "${LR=}"                              # takes the place of TEACHER_LR when set
: "${USE_SAMPLE_WEIGHTS=1}"             # meta: 1 weights each example by its prototype score (paper: 1)
: "${USE_DOMAIN_LOSS=1}"                # meta: 1 adds the domain-corruption loss (paper: 1)
: "${DOMAIN_LOSS_WEIGHT=0.5}"           # meta: weight of that loss, the paper's gamma 1 (paper: 0.5)
: "${DOMAIN_LABELS=false}"              # meta: its labels, false (paper), permuted (the authors' code); reversal, uniform: drive the domain out
: "${DROPOUT=}"                         # every dropout probability; empty: the defaults of the model's family, whatever its config.json says
: "${PROTOCOL=honest}"                  # selects checkpoints on dev; paper, in superglue and glue, on the reported set (optimistic)
: "${SEED=42}"                          # fixes everything on one machine (paper: 42)
: "${MAX_LENGTH=128}"                   # tokens an example (paper: 128)
: "${BATCH_SIZE=32}"                    # examples a step and process (paper: 32)
: "${EVAL_BATCH_SIZE=64}"               # examples a step where nothing is learnt
: "${PRECISION=auto}"                   # auto, fp32, bf16 or fp16
: "${DEVICE=auto}"                      # auto, cpu, cuda or cuda:<number>
: "${SAVE_STEPS=0}"                      # a checkpoint every so many steps too; 0: at the ends of epochs alone
: "${NPROC=1}"                          # processes, one a device
: "${REPORT_TO=none}"                   # none, tensorboard or wandb

launch scripts/train_teacher.py \
    --suite "$SUITE" --domain "$DOMAIN" --domains "$DOMAINS" --hold_out "$HOLD_OUT" --train_fraction "$TRAIN_FRACTION" \
    --protocol "$PROTOCOL" --seed "$SEED" \
    --data_dir "$DATA_DIR" --output_root "$OUTPUT_DIR" --teacher "$TEACHER" --teacher_model "$TEACHER_MODEL" \
    --use_sample_weights "$USE_SAMPLE_WEIGHTS" --use_domain_loss "$USE_DOMAIN_LOSS" \
    --domain_loss_weight "$DOMAIN_LOSS_WEIGHT" --domain_labels "$DOMAIN_LABELS" \
    --num_train_epochs "$(stage_value EPOCHS TEACHER_EPOCHS)" --learning_rate "$(stage_value LR TEACHER_LR)" \
    --lr_scheduler_type "$TEACHER_SCHEDULE" --max_length "$MAX_LENGTH" --per_device_train_batch_size "$BATCH_SIZE" \
    --per_device_eval_batch_size "$EVAL_BATCH_SIZE" --precision "$PRECISION" --device "$DEVICE" \
    --dropout "$DROPOUT" --save_steps "$SAVE_STEPS" --report_to "$REPORT_TO" "$@"
