#!/usr/bin/env bash
# Stage 6: the learner teaches back. A meta-teacher learns on quiz from the teacher's and the student's states; then the
# student goes on learning on quiz batches of the domains that a policy picks, which learns from the student's progress.
# It reads student_second/, the teacher and quiz.tsv (stage 2 with QUIZ_FRACTION above 0), and writes
# outputs/<suite>/seed<k>/<domain>/meta_teacher/ and curriculum/: the student that is best on dev, every step, plots.
source "$(dirname "$0")/scripts/common.sh"

: "${SUITE=amazon}"                     # as in stage 1
: "${DOMAIN=}"                          # as in stage 4
: "${DOMAINS=}"                         # domains to pick from, separated by commas or blanks; empty: all of the suite
: "${TRAIN_FRACTION=1}"                 # share of DOMAIN's quiz that is used, as of its train rows in stages 3 to 5; the other domains keep theirs
: "${TEACHER=meta}"                     # whose meta-teacher: meta, single, mix or mtl, as in stage 3 (paper: single)
: "${TEACHER_DIR=}" --teacher_root      # as in stage 4
: "${STUDENT_DIR=}" --student_root      # OUTPUT_DIR of another run, whose student_second/ is used; empty: this run's
: "${META_LOSS=collaborative}"          # the meta-teacher's loss: collaborative, it reads the student's states too, or competitive, it beats them (paper: both)
: "${META_EPOCHS=1}"                    # the meta-teacher's passes over quiz (paper: 1)
: "${META_LR=1e-3}"                     # the meta-teacher's learning rate (paper: 1e-3)
: "${EPISODES=200}"                     # episodes; after each the policy learns (paper: 200)
: "${EPISODE_STEPS=}"                   # steps an episode; empty: one for each batch of the quiz (paper)
: "${STUDENT_UPDATE=step}"              # the student learns after each step, once an episode, or released: as the authors' trainer does it
: "${META_GRADIENT=detach}"             # p_T'(y|h_S) in the student's loss: detach, a constant (authors' code); flow: with its gradient
: "${CURRICULUM_LR=3e-5}"               # the student's learning rate (paper: 3e-5)
: "${POLICY=learned}"                   # who picks: learned (paper); to compare: bandit or ucb (by a running mean of rewards), uniform, target_only or round_robin
: "${POLICY_LR=}"                       # learning rate of the learned policy; empty: 0.05, with released 1e-3 (authors' code)
: "${CHOOSE_FROM=all}"                  # domains to pick from: all (paper), or the others than the target
: "${FIRST_ACTION=}"                    # an episode's first domain is drawn: learnt from (weighed), or ignored (paper); empty: learnt, with released ignored
: "${STATE=}"                           # what the policy sees: progress (recent losses, rewards) or pooler (paper); empty: progress, with released pooler
: "${REWARD=real}"                      # by how much the student beats the meta-teacher; binary: on how many rows
: "${REWARD_ROWS=}"                     # held_out: half of the quiz, which the student never learns from; all (paper); empty: held_out, with released all
: "${ADVANTAGE=}"                       # a step earns the improvement of its reward, or its level (paper); empty: improvement, with released level
: "${GAMMA=}"                           # discount of later rewards; empty: 0 for improvement, 0.99 (paper) for level
: "${ENTROPY_WEIGHT=}"                  # reward for a policy that stays open, in units of the rewards' size; empty: 0.1, with released 0 (paper)
: "${EVAL_EVERY=10}"                    # episodes between scores on dev, of which the best is kept (paper: 1)
: "${PATIENCE=0}"                       # end after so many of these scores in a row without a better one; 0: never (paper)
: "${TEACHER_CACHE_GB=}"                # as in stage 4
: "${PROTOCOL=honest}"                  # as in stage 3
: "${SEED=42}"                          # as in stage 3
: "${DATA_DIR=${beside}data}"           # as in stage 1
: "${OUTPUT_DIR=${beside}outputs}" --output_root  # as in stage 3
: "${MAX_LENGTH=128}"                   # as in stage 2
: "${BATCH_SIZE=8}"                     # examples a step (paper: 8)
: "${EVAL_BATCH_SIZE=64}"               # as in stage 2
: "${PRECISION=auto}"                   # as in stage 2
: "${DEVICE=auto}"                      # as in stage 2
: "${REPORT_TO=none}"                   # none, tensorboard or wandb: rewards, the policy's entropy and probabilities, and scores, below the logs/ of the run

run scripts/curriculum.py "$@"
