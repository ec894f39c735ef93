"""The one error that a user can mend, and how every command reports it."""

import sys
from collections.abc import Callable

EXIT_BAD_INPUT = 2


class InputError(Exception):
    """Something the user gave is wrong. The message says what, where, expected, found, what to do."""


class StoreError(InputError):
    """A store of files that does not answer. What lies there may be in good order."""


def exit_with_message(main: Callable[[], None]) -> None:
    """Run a command; turn an `InputError` into one message on stderr and exit code 2.

    So too an error of the file system about a path (a folder that can't be written, a full disk) and what
    keeps an object store from being reached: no keys, no server.
    """
    try:
        main()
    except InputError as error:
        message = str(error)
    except OSError as error:
        if error.filename is None:
            raise
        message = f"{error.filename}: {error.strerror}. Check the path, its permissions and the space left."
    except Exception as error:
        if type(error).__module__ != "botocore.exceptions":  # there only where a path is on s3://
            raise
        message = f"s3://: {error}. Check the keys, the region and the endpoint (docs/object_stores.md)."
    else:
        return
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(EXIT_BAD_INPUT)
