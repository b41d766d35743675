# Amazon with a small real encoder that installs from a package index: MiniLM (6 layers, 384 wide) into its first 3 layers.
# Set TEACHER_MODEL to its folder. Numbers: docs/results_log.md.
SUITE=amazon
DOMAIN=all
QUIZ_FRACTION=0             # paper: train on all of train; stage 6 needs 0.1
TEACHER_LR=5e-5
STUDENT_INIT=teacher        # cut from the fine-tuned teacher, head included
STUDENT_LAYERS=3
TRANSFER_SET=all            # every domain's texts; this stage needs no labels
FIRST_LR=1e-4
FIRST_SCHEDULE=linear
SECOND_LR=5e-5
