"""How every command reads its arguments: one form of help, and for a mistyped option the nearest one."""

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn

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
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown)
        return options

    def _refuse(self, unknown: list[str]) -> NoReturn:
        known = [name for name in self._option_string_actions if name.startswith("--")]
        found = []
        for word in unknown:
            nearest = difflib.get_close_matches(word.partition("=")[0], known, n=1)
            found.append(f"{word} (did you mean {nearest[0]}?)" if nearest else word)
        self.error(f"unrecognized arguments: {', '.join(found)}. See --help.")
