"""Stages 4 and 5: distil a student. Example: python scripts/distill_student.py --stage first --suite sample --domain books"""

from teachback.core.errors import run_entry_point


def main():
    from teachback.core.arguments import STUDENT_STAGES
    from teachback.core.parsing import parse
    from teachback.inference.hub import check_hub, push
    from teachback.stages.distillation import distil

    data, student, first, second, meta, training = parse(*STUDENT_STAGES)
    check_hub(training)
    folders = distil(data, student, first, second, meta, training)
    if training.should_save:
        push(folders, training)


if __name__ == "__main__":
    run_entry_point(main)
