#!/usr/bin/env bash
# Stage 5: the student of stage 4 learns the teacher's predictions on its own domain; the best on dev is kept.
# It reads student_first/ and the teacher, and writes outputs/<suite>/seed<k>/<domain>/student_second/.
# METHOD=finetune trains the same student on the labels alone instead, for comparison, into student_finetune/.
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"                     # amazon, mnli, sample or custom
: "${DOMAIN=}"                          # the student's domain; empty: the suite's first; all: one after the other
: "${DOMAINS=}"                         # domains in use, separated by commas or blanks; empty: all of the suite
: "${METHOD=metakd}"                    # metakd, or finetune: no teacher and no stage 4
: "${TEACHER=meta}"                     # whom to learn from: meta, single, mix or mtl, as in stage 3
: "${STUDENT_MODEL=huawei-noah/TinyBERT_General_4L_312D}"  # finetune: what to start from, as in stage 4
: "${STUDENT_LAYERS=}"                  # finetune: cut it, as in stage 4; empty: leave it whole (paper)
: "${STUDENT_INIT=pretrained}"          # finetune: start from pretrained or teacher, as in stage 4
: "${SOFT_LOSS=ce}"                     # loss between predictions: ce (paper), kl or mse
: "${TEMPERATURE=1}"                    # softens both predictions; a real number (paper: 1)
: "${HARD_LABEL_WEIGHT=0}"              # share of the loss that goes to the labels, 0 to 1 (paper: 0)
: "${USE_EXPERTISE_WEIGHTS=1}"          # 1 weights each example by the teacher's expertise, lambda (paper: 1; code: 0)
: "${SECOND_EPOCHS=3}"                  # passes over the data (paper: 3)
: "${SECOND_LR=3e-5}"                   # peak learning rate (paper: 3e-5)
: "${EPOCHS=}"                          # takes the place of SECOND_EPOCHS when set
: "${LR=}"                              # takes the place of SECOND_LR when set
: "${PROTOCOL=honest}"                  # selects checkpoints on: honest, dev; paper, the reported set (optimistic)
: "${SEED=42}"                          # fixes everything on one machine (paper: 42)
: "${MAX_LENGTH=128}"                   # tokens an example (paper: 128)
: "${BATCH_SIZE=32}"                    # examples a step and process (paper: 32)
: "${EVAL_BATCH_SIZE=64}"               # examples a step where nothing is learnt
: "${PRECISION=auto}"                   # auto, fp32, bf16 or fp16
: "${DEVICE=auto}"                      # auto, cpu, cuda or cuda:<number>
: "${NPROC=1}"                          # processes, one a device
: "${REPORT_TO=none}"                   # none, tensorboard or wandb

launch scripts/distill_student.py --stage second \
    --suite "$SUITE" --domain "$DOMAIN" --domains "$DOMAINS" --protocol "$PROTOCOL" --seed "$SEED" \
    --data_dir "$DATA_DIR" --output_root "$OUTPUT_DIR" --method "$METHOD" --teacher "$TEACHER" \
    --student_model "$STUDENT_MODEL" --student_layers "$STUDENT_LAYERS" --student_init "$STUDENT_INIT" \
    --soft_loss "$SOFT_LOSS" --temperature "$TEMPERATURE" --hard_label_weight "$HARD_LABEL_WEIGHT" \
    --use_expertise_weights "$USE_EXPERTISE_WEIGHTS" \
    --num_train_epochs "$(stage_value EPOCHS SECOND_EPOCHS)" --learning_rate "$(stage_value LR SECOND_LR)" \
    --max_length "$MAX_LENGTH" --per_device_train_batch_size "$BATCH_SIZE" \
    --per_device_eval_batch_size "$EVAL_BATCH_SIZE" --precision "$PRECISION" --device "$DEVICE" \
    --report_to "$REPORT_TO" "$@"
