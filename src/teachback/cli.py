"""The console command ``teachback``: which stages there are, and the version."""

import argparse

from teachback import __all__, __version__

STAGES = {
    "1_get_data.sh": "fetch a suite's archives, verify and unpack them",
    "2_process_data.sh": "make train, quiz, dev and test tables, and score rows by prototypes",
    "3_train_teacher.sh": "train the teacher",
    "4_student_first.sh": "distil the teacher's inner layers into the student",
    "5_student_second.sh": "distil its predictions",
    "6_curriculum.sh": "meta-teacher, and the student's curriculum",
    "7_eval.sh": "score every checkpoint; tables and report.html",
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("teachback", description="Lists the stages of Teachback.")
    parser.add_argument("--version", action="version", version=f"teachback {__version__}")
    parser.parse_args(argv)
    width = max(map(len, STAGES))
    print("Stages, run in this order from a checkout of the project (--help explains each):")
    print("\n".join(f"  bash {name:{width}}  {what}" for name, what in STAGES.items()))
    print(f"From Python: from teachback import {', '.join(__all__)}")


if __name__ == "__main__":
    main()
