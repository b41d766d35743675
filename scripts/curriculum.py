"""Stage 6: meta-teacher and curriculum. Example: python scripts/curriculum.py --suite sample --domain books"""

from teachback.core.errors import run_entry_point
from teachback.core.imports import garbage_collection_paused


def main():
    with garbage_collection_paused():
        from teachback.core.arguments import CURRICULUM_STAGE
        from teachback.core.parsing import parse
        from teachback.inference.hub import HubArguments, check_hub, push

        *arguments, hub = parse(*CURRICULUM_STAGE, HubArguments)
        check_hub(hub)

        # imports PyTorch, which is not needed for --help and for errors in flags
        from teachback.stages.stage6_curriculum import run_curriculum

    push(run_curriculum(*arguments), hub)


if __name__ == "__main__":
    run_entry_point(main)
