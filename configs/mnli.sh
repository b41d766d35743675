# Meta-KD's MNLI experiment: five genres of sentence pairs, BERT-base into TinyBERT (4 layers, 312 wide).
# The paper's settings for MNLI are not known; these are those of Amazon.
SUITE=mnli
DOMAIN=fiction
QUIZ_FRACTION=0             # paper: all of train is trained on; stage 6 needs 0.1
