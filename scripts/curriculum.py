"""Stage 6: the meta-teacher, and the student's curriculum. Example: python scripts/curriculum.py --suite sample --domain books"""

from teachback.arguments import CURRICULUM_STAGE, parse
from teachback.curriculum_run import run_curriculum
from teachback.errors import run_entry_point


def main():
    run_curriculum(*parse(*CURRICULUM_STAGE))


if __name__ == "__main__":
    run_entry_point(main)
