# Meta-KD's MNLI experiment: five genres of sentence pairs, BERT-base into TinyBERT (4 layers, 312 wide).
# The paper's settings for MNLI are not known; these are those of Amazon. A tenth of train is kept as stage 6's quiz.
# The paper trains on all of it: QUIZ_FRACTION=0 for stage 2, after which stages 3 to 5 and 7 run.
SUITE=mnli
DOMAIN=fiction
