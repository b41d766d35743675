"""Run stages one after the other, loading the libraries only once: PYTHONPATH=src python scripts/in_turn.py 1_get_data.sh 2_process_data.sh

Variables are set in the environment; those of a single stage are given before its name: ... METHOD=finetune 5_student_second.sh
"""

import argparse

from teachback.core.errors import run_entry_point

STAGES = ("stage2_data", "stage3_teacher", "distillation", "stage6_curriculum", "stage7_evaluate")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", help="stage scripts, each after its own variables NAME=value")
    words = parser.parse_args().stages

    from teachback.core.parsing import import_less

    import_less()

    from teachback.stages.in_turn import run_in_turn

    run_in_turn(words, [*(f"teachback.stages.{name}" for name in STAGES), "teachback.reports.run_page"])


if __name__ == "__main__":
    run_entry_point(main)
