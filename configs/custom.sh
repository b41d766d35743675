# Your own data: SOURCE is a folder with train.tsv, dev.tsv and test.tsv, or one TSV file to split.
# The header names at least text_a, label and domain; text_b and guid may be there too.
SUITE=custom
DOMAIN=                     # empty: the first domain of the data
DEV_FRACTION=0.1            # cut from train, by domain and label, where SOURCE has no dev.tsv
TEST_FRACTION=0.1           # the same for test.tsv
EPOCHS=                     # empty: each stage's own number
