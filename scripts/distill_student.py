"""Stages 4 and 5: distil a student. Example: python scripts/distill_student.py --stage first --suite sample --domain books"""

from teachback.core.errors import run_entry_point
from teachback.core.imports import garbage_collection_paused


def main():
    with garbage_collection_paused():
        from teachback.core.arguments import STUDENT_STAGES
        from teachback.core.parsing import parse
        from teachback.inference.hub import HubArguments, check_hub, push

        *arguments, hub = parse(*STUDENT_STAGES, HubArguments)
        check_hub(hub)

        # imports PyTorch, which is not needed for --help and for errors in flags
        from teachback.stages.distillation import distil

    push(distil(*arguments), hub)


if __name__ == "__main__":
    run_entry_point(main)
