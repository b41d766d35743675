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
: "${TEACHER_DIR=}"                     # OUTPUT_DIR of another run, whose teacher is used; empty: this run's
: "${STUDENT_MODEL=huawei-noah/TinyBERT_General_4L_312D}"  # hub name, folder or scratch:tiny (paper: this TinyBERT)
: "${STUDENT_LAYERS=}"                  # cut: 3 (the first three), spread:3, or e.g. 1,3,5; empty: all layers (paper)
: "${STUDENT_INIT=pretrained}"          # start from: pretrained, STUDENT_MODEL; teacher, a cut of the trained teacher
: "${LAYER_MAP=uniform}"                # teacher layers to learn from: uniform (paper), last, first, e.g. 3,6,9,12, or one alone for the last
: "${TRANSFER_SET=domain}"              # texts to learn on: domain (paper), or all domains' texts
: "${UNLABELLED=}"                      # file of further texts of the domain: one a line, a pair with a tab between
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
: "${FIRST_EPOCHS=10}"                  # passes over the data (paper: 10)
: "${FIRST_LR=5e-5}"                    # learning rate (paper: 5e-5)
: "${FIRST_SCHEDULE=constant}"          # learning rate over time: constant (paper), or linear after a warm-up of 10 %
: "${EPOCHS=}"                          # takes the place of FIRST_EPOCHS when set
: "${LR=}"                              # takes the place of FIRST_LR when set
: "${TEACHER_CACHE_GB=}"                # most disk for what teachers said, so that they run once; empty: a fifth of what is free
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

launch scripts/distill_student.py --stage first \
    --suite "$SUITE" --domain "$DOMAIN" --domains "$DOMAINS" --hold_out "$HOLD_OUT" --train_fraction "$TRAIN_FRACTION" \
    --protocol "$PROTOCOL" --seed "$SEED" \
    --data_dir "$DATA_DIR" --output_root "$OUTPUT_DIR" --teacher_root "$TEACHER_DIR" \
    --first "$FIRST" --teacher "$TEACHER" --teacher_domain "$TEACHER_DOMAIN" \
    --student_model "$STUDENT_MODEL" --student_layers "$STUDENT_LAYERS" --student_init "$STUDENT_INIT" \
    --layer_map "$LAYER_MAP" --teacher_cache_gb "$TEACHER_CACHE_GB" \
    --transfer_set "$TRANSFER_SET" --unlabelled "$UNLABELLED" --attention_target "$ATTENTION_TARGET" --relation_heads "$RELATION_HEADS" \
    --use_expertise_weights "$USE_EXPERTISE_WEIGHTS" --expertise_power "$EXPERTISE_POWER" --loss_balance "$LOSS_BALANCE" --use_sample_weights "$USE_SAMPLE_WEIGHTS" \
    --embedding_weight "$EMBEDDING_WEIGHT" \
    --hidden_weight "$HIDDEN_WEIGHT" --attention_weight "$ATTENTION_WEIGHT" --tkd_weight "$TKD_WEIGHT" --first_dropout "$FIRST_DROPOUT" \
    --num_train_epochs "$(stage_value EPOCHS FIRST_EPOCHS)" --learning_rate "$(stage_value LR FIRST_LR)" \
    --lr_scheduler_type "$FIRST_SCHEDULE" --max_length "$MAX_LENGTH" --per_device_train_batch_size "$BATCH_SIZE" \
    --per_device_eval_batch_size "$EVAL_BATCH_SIZE" --precision "$PRECISION" --device "$DEVICE" \
    --dropout "$DROPOUT" --save_steps "$SAVE_STEPS" --report_to "$REPORT_TO" "$@"
