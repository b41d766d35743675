# GLUE with a small real encoder that installs from a package index: MiniLM (6 layers, 384 wide) into its first 3.
# Set TEACHER_MODEL to its folder. Numbers: docs/results_log.md.
SUITE=glue
DOMAIN=STS-B
DOMAINS="CoLA STS-B"
QUIZ_FRACTION=0.1           # paper: 0.1, so also with PROTOCOL=paper
TEACHER=single
STUDENT_MODEL=${TEACHER_MODEL-bert-base-uncased}   # the same encoder, cut
STUDENT_LAYERS=3
STUDENT_INIT=teacher        # cut from the fine-tuned teacher, as in MPDistil
FIRST=metakd                # MPDistil has no first stage; without one the small student reaches half of its teacher's STS-B
TKD_WEIGHT=0                # a single teacher has no transferable knowledge
FIRST_LR=1e-4
FIRST_SCHEDULE=linear
METHOD=mpdistil
PKD_LAYERS=skip             # the teacher layers that the first stage maps to
BATCH_SIZE=8
TEACHER_EPOCHS=10
TEACHER_LR=5e-5
SECOND_EPOCHS=10
SECOND_LR=5e-5
