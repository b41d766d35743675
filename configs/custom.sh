# Your own data. SOURCE names it: a folder with train.tsv, dev.tsv and test.tsv, or one TSV file, which is then split.
# The header line names at least text_a, label and domain; text_b (for pairs) and guid may be there too.
SUITE=custom
DOMAIN=                     # the student's domain; empty: the first in the data
DEV_FRACTION=0.1            # share of train cut off as dev, where there is no dev.tsv
TEST_FRACTION=0.1           # share of train cut off as test, where there is no test.tsv
