"""How every command reads its arguments: one form of help, and for a mistyped option the nearest one."""

import argparse
import sys
from collections.abc import Sequence
from datetime import date
from typing import Any

from cli.nearest import did_you_mean
from cli.version import VERSION


class CommandParser(argparse.ArgumentParser):
    """A parser for `python -m <command>`.

    description: what the command does; its lines stay as they are. examples: command lines that run, shown
    at the end of `--help`.
    """

    def __init__(self, command: str, description: str, examples: str = "", **options: Any) -> None:
        super().__init__(
            f"python -m {command}",
            description=description,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )
        self.add_argument("--version", action="version", version=f"{command} {VERSION}")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """As argparse does; an option that there is not ends the command with the one that comes nearest."""
        words = list(sys.argv[1:] if args is None else args)
        # First of all: argparse would rather miss the required option that is mistyped.
        self._refuse([word for word in words if word.startswith("--") and not self._is_known(word)])
        options, unknown = self.parse_known_args(words, namespace)
        self._refuse(unknown)
        return options

    def _is_known(self, word: str) -> bool:
        """Whether an option, or what is short for one, stands there; `--` alone does not either."""
        name = word.partition("=")[0]
        return name == "--" or any(known.startswith(name) for known in self._option_string_actions)

    def _refuse(self, unknown: list[str]) -> None:
        """End the command where there are such words."""
        known = [name for name in self._option_string_actions if name.startswith("--")]
        told = [f"{word}{did_you_mean(word.partition('=')[0], known)}" for word in unknown]
        if told:
            self.error(f"unrecognized arguments: {', '.join(told)}. See --help.")


def iso_day(text: str) -> date:
    """The type of an option that is a day."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected YYYY-MM-DD, found {text!r}") from error
