# The generated sample suite, with models that two CPU cores train from random weights in minutes. No network.
SUITE=sample
DOMAIN=books
TEACHER_MODEL=scratch:mini
STUDENT_MODEL=scratch:tiny
EMBEDDING_MODEL=scratch:mini
TRANSFER_SET=all            # random weights need more text than one domain has
MAX_LENGTH=64
TEACHER_EPOCHS=10
TEACHER_LR=5e-4             # random weights: far above the papers' 2e-5
FIRST_EPOCHS=15
FIRST_LR=1e-3
FIRST_SCHEDULE=linear
SECOND_EPOCHS=10
SECOND_LR=5e-4
EPISODES=40                 # stage 6: walks of seven steps
EVAL_EVERY=5
CURRICULUM_LR=1e-4
