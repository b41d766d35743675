# Meta-KD's Amazon experiment: four domains of product reviews, BERT-base into TinyBERT (4 layers, 312 wide).
# The stages' defaults are this experiment's published settings; only the split differs (see QUIZ_FRACTION).
SUITE=amazon
DOMAIN=books
QUIZ_FRACTION=0             # paper: all of train is trained on; stage 6 needs 0.1
