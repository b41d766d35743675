# Your own data. SOURCE is a CSV, TSV, JSON lines or Parquet file, which stage 2 splits; a folder of such files (train, dev
# and test); a saved data set; or hub:<name>. Its columns are text_a, label, domain and, for pairs, text_b. For other names set
# TEXT_A_COLUMN, LABEL_COLUMN, DOMAIN_COLUMN and TEXT_B_COLUMN.
SUITE=custom
DOMAIN=                     # the student's domain; empty: the first in the data
DEV_FRACTION=0.1            # share of the rows that becomes dev if there is no dev file
TEST_FRACTION=0.1           # share of the rows that becomes test if there is no test file
DOMAIN_LABELS=uniform       # TEACHER=meta: keeps the domain out of what is transferred, 2.5 points better than the paper's (docs/results.md)
TRANSFER_SET=all            # students train on every domain's texts; 2.3 points better than on the domain's alone
