"""The one exception that users see, and how an entry point shows it."""

import sys


class TeachbackError(Exception):
    """Something the user can mend: the message says what was wrong, where, and what to do."""


def run_entry_point(main):
    """Call ``main``; print a TeachbackError as one line without a traceback and exit with 1."""
    try:
        main()
    except TeachbackError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
