# MPDistil's SuperGLUE experiment with the authors' settings: BERT-base into its own first six layers, one task.
# The student is cut from TEACHER_MODEL, also if the environment sets it.
SUITE=superglue
DOMAIN=CB
DOMAINS=                    # empty: all; the paper's: "BoolQ CB COPA RTE WiC WSC"
QUIZ_FRACTION=0.1           # paper: 0.1, so also with PROTOCOL=paper
TEACHER=single              # fine-tuned on DOMAIN alone; mtl: with a head for each of DOMAINS
TEACHER_MODEL=${TEACHER_MODEL-bert-base-uncased}
STUDENT_MODEL=$TEACHER_MODEL
STUDENT_LAYERS=6            # the first six of its layers
FIRST=none                  # MPDistil has no first stage
METHOD=mpdistil
BATCH_SIZE=8
TEACHER_EPOCHS=10
TEACHER_LR=2e-5
TEACHER_SCHEDULE=constant   # the authors' code has no warm-up and no decay
SECOND_EPOCHS=10
SECOND_LR=3e-5
SECOND_SCHEDULE=constant
