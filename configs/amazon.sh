# Meta-KD's Amazon experiment: four domains of product reviews, BERT-base into TinyBERT (4 layers, 312 wide).
# The stages' defaults are this experiment's published settings, but a tenth of train is kept as stage 6's quiz.
# The paper trains on all of it: QUIZ_FRACTION=0 for stage 2, after which stages 3 to 5 and 7 run.
SUITE=amazon
DOMAIN=books
