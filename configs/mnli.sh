# Meta-KD's MNLI experiment: five genres of sentence pairs, BERT-base into TinyBERT (4 layers, 312 wide).
# The paper's settings for MNLI are not known; these are those for Amazon. A tenth of train becomes the quiz of stage 6.
# To train on all of train as the paper does, set QUIZ_FRACTION=0 in stage 2; stage 6 then cannot run.
SUITE=mnli
DOMAIN=fiction
