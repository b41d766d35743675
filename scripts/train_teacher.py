"""Stage 3: train a teacher. Example: python scripts/train_teacher.py --suite sample --teacher_model scratch:mini"""

from teachback.core.errors import run_entry_point


def main():
    from teachback.core.arguments import TEACHER_STAGE
    from teachback.core.parsing import parse
    from teachback.inference.hub import check_hub, push
    from teachback.stages.check import check_later_stages
    from teachback.stages.stage3_teacher import train_teachers

    data, teacher, training = parse(*TEACHER_STAGE)
    check_hub(training)
    check_later_stages("3_train_teacher.sh")
    folders = train_teachers(data, teacher, training)
    if training.should_save:
        push(folders, training)


if __name__ == "__main__":
    run_entry_point(main)
