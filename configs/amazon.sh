# Meta-KD's Amazon experiment: four domains of product reviews, BERT-base into TinyBERT (4 layers, 312 wide).
# The stages' defaults are this experiment's published settings, except that a tenth of train becomes the quiz of stage 6.
# To train on all of train as the paper does, set QUIZ_FRACTION=0 in stage 2; stage 6 then cannot run.
SUITE=amazon
DOMAIN=books
