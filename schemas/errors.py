"""The one error that a user can mend, and how every command reports it."""

import sys
from collections.abc import Callable

EXIT_BAD_INPUT = 2


class InputError(Exception):
    """Something the user gave is wrong. The message says what, where, expected, found, what to do."""


def exit_with_message(main: Callable[[], None]) -> None:
    """Run a command; turn an `InputError` into one message on stderr and exit code 2."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_BAD_INPUT)
