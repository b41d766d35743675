# Your own data. SOURCE names it: a file of CSV, TSV, JSON lines or Parquet, which is then split, a folder of them (train, dev
# and test each for itself), a saved data set or hub:<name>. Its columns are text_a, label, domain and, for pairs, text_b, or
# those that TEXT_A_COLUMN, LABEL_COLUMN, DOMAIN_COLUMN and TEXT_B_COLUMN name.
SUITE=custom
DOMAIN=                     # the student's domain; empty: the first in the data
DEV_FRACTION=0.1            # share of train cut off as dev, where there is no dev file
TEST_FRACTION=0.1           # share of train cut off as test, where there is no test file
DOMAIN_LABELS=uniform       # TEACHER=meta: keeps the domain out of what is transferred, 2.5 points better than the paper's (docs/results.md)
TRANSFER_SET=all            # students learn from every domain's texts; 2.3 points better than from the domain's alone
