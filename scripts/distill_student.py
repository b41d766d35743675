"""Stages 4 and 5: distil a student. Example: python scripts/distill_student.py --stage first --suite sample --domain books"""

from teachback.arguments import STUDENT_STAGES, parse
from teachback.errors import run_entry_point
from teachback.stages import distil


def main():
    distil(*parse(*STUDENT_STAGES))


if __name__ == "__main__":
    run_entry_point(main)
