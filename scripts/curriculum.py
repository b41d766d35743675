"""Stage 6: the meta-teacher, and the student's curriculum. Example: python scripts/curriculum.py --suite sample --domain books"""

from teachback.errors import run_entry_point


def main():
    from teachback.arguments import CURRICULUM_STAGE, parse
    from teachback.curriculum_run import run_curriculum
    from teachback.hub import HubArguments, check_hub, push

    *arguments, hub = parse(*CURRICULUM_STAGE, HubArguments)
    check_hub(hub)
    push(run_curriculum(*arguments), hub)


if __name__ == "__main__":
    run_entry_point(main)
