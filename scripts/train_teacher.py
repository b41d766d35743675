"""Stage 3: train a teacher. Example: python scripts/train_teacher.py --suite sample --teacher_model scratch:mini"""

from teachback.arguments import TEACHER_STAGE, parse
from teachback.errors import run_entry_point
from teachback.stages import train_teachers


def main():
    train_teachers(*parse(*TEACHER_STAGE))


if __name__ == "__main__":
    run_entry_point(main)
