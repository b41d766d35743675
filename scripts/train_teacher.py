"""Stage 3: train a teacher. Example: python scripts/train_teacher.py --suite sample --teacher_model scratch:mini"""

from teachback.core.errors import run_entry_point
from teachback.core.imports import garbage_collection_paused


def main():
    with garbage_collection_paused():
        from teachback.core.arguments import TEACHER_STAGE
        from teachback.core.parsing import parse
        from teachback.inference.hub import HubArguments, check_hub, push

        *arguments, hub = parse(*TEACHER_STAGE, HubArguments)
        check_hub(hub)

        # imports PyTorch, which is not needed for --help and for errors in flags
        from teachback.stages.check import check_later_stages
        from teachback.stages.stage3_teacher import train_teachers

    check_later_stages("3_train_teacher.sh")
    push(train_teachers(*arguments), hub)


if __name__ == "__main__":
    run_entry_point(main)
