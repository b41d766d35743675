#!/usr/bin/env bash
# Stage 6: trains a meta-teacher on quiz, from the teacher's and the student's states. Then the student continues to train on
# quiz batches from domains that a policy picks; the policy learns from the student's progress.
# It reads student_second/, the teacher and quiz.tsv (stage 2 with QUIZ_FRACTION above 0), and writes
# outputs/<suite>/seed<k>/<domain>/meta_teacher/ and curriculum/: the best student on dev, a record of every step, and plots.
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"                     # as in stage 1
: "${DOMAIN=}"                          # as in stage 4
: "${DOMAINS=}"                         # domains to pick from, separated by commas or blanks; empty: all of the suite
: "${TRAIN_FRACTION=1}"                 # share of DOMAIN's quiz rows to use, as of its train rows in stages 3 to 5; other domains keep all of theirs
: "${TEACHER=meta}"                     # teacher of the meta-teacher: meta, single, mix or mtl, as in stage 3 (paper: single)
: "${TEACHER_DIR=}" --teacher_root      # as in stage 4
: "${STUDENT_DIR=}" --student_root      # OUTPUT_DIR of another run whose student_second/ to use; empty: this run's
: "${META_LOSS=collaborative}"          # loss of the meta-teacher: collaborative (learns from both models' states) or competitive (learns to beat the student); the paper has both
: "${META_EPOCHS=1}"                    # the meta-teacher's epochs on quiz (paper: 1)
: "${META_LR=1e-3}"                     # the meta-teacher's learning rate (paper: 1e-3)
: "${EPISODES=200}"                     # number of episodes; the policy is updated after each (paper: 200)
: "${EPISODE_STEPS=}"                   # steps per episode; empty: the number of batches in the target's quiz (paper)
: "${STUDENT_UPDATE=step}"              # when the student is updated: step, after each step; episode, after each episode; released, as in the authors' trainer
: "${META_GRADIENT=detach}"             # p_T'(y|h_S) in the student's loss: detach, a constant (authors' code); flow, with its gradient
: "${CURRICULUM_LR=3e-5}"               # the student's learning rate (paper: 3e-5)
: "${POLICY=learned}"                   # policy that picks domains: learned (paper); for comparison: bandit or ucb (running means of rewards), uniform, target_only or round_robin
: "${POLICY_LR=}"                       # learning rate of the learned policy; empty: 0.05, with released 1e-3 (authors' code)
: "${CHOOSE_FROM=all}"                  # domains to pick from: all (paper), or others: all but the target
: "${FIRST_ACTION=}"                    # first pick of an episode, drawn uniformly: learnt (trains the policy, with an importance weight) or ignored (paper); empty: learnt, with released ignored
: "${STATE=}"                           # input of the policy: progress (recent losses and rewards) or pooler (paper); empty: progress, with released pooler
: "${REWARD=real}"                      # reward: real (by how much the student beats the meta-teacher) or binary (on how many rows); the paper has both
: "${REWARD_ROWS=}"                     # quiz rows that measure rewards: held_out (half of them, never trained on) or all (paper); empty: held_out, with released all
: "${ADVANTAGE=}"                       # credit of a step: improvement (the change of the reward) or level (the reward itself, paper); empty: improvement, with STUDENT_UPDATE=episode or released level
: "${GAMMA=}"                           # discount of later rewards; empty: 0 for improvement, 0.99 (paper) for level
: "${ENTROPY_WEIGHT=}"                  # weight of the policy's entropy, in units of the rewards' size; empty: 0.1, with released 0 (paper)
: "${EVAL_EVERY=10}"                    # episodes between evaluations on dev; the best student is kept (paper: 1)
: "${PATIENCE=0}"                       # stop after this many evaluations in a row without a better score; 0: never (paper)
: "${TEACHER_CACHE_GB=}"                # as in stage 4
: "${PROTOCOL=honest}"                  # as in stage 3
: "${SEED=42}"                          # as in stage 3
: "${DATA_DIR=${beside}data}"           # as in stage 1
: "${OUTPUT_DIR=${beside}outputs}" --output_root  # as in stage 3
: "${MAX_LENGTH=128}"                   # as in stage 2
: "${BATCH_SIZE=8}"                     # examples per step (paper: 8)
: "${EVAL_BATCH_SIZE=64}"               # as in stage 2
: "${PRECISION=auto}"                   # as in stage 2
: "${DEVICE=auto}"                      # as in stage 2
: "${REPORT_TO=none}"                   # none, tensorboard or wandb: logs rewards, the policy's entropy and probabilities, and scores, below the run's logs/

run scripts/curriculum.py "$@"
