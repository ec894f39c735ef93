"""Keep the versions of the model, and which of them is the champion: it is the one that is served.

    python -m esmm.registry champion --registry build/registry --json
    python -m esmm.registry register --registry build/registry --run runs/0923 --day 2026-09-23 \\
        --metrics runs/0923/metrics.json --parent 3
    python -m esmm.registry decide --registry build/registry --version 4 --day 2026-09-24 \\
        --metrics runs/0923/metrics.json --config configs/demo.yaml --out runs/0923/decision.json
    python -m esmm.registry show --registry build/registry
    python -m esmm.registry rollback --registry build/registry --reason 'revenue fell'
    python -m esmm.registry promote --registry build/registry --version 2 --reason 'the last good one'

SUBCOMMAND --help says what each of them is told. docs/registry.md has the gates.
"""

import sys

from cli.arguments import CommandParser
from cli.errors import exit_with_message
from cli.log import set_up_logging
from esmm.registry.commands import COMMANDS


def main() -> None:
    """The command; see the top of this file."""
    parser = CommandParser("esmm.registry", __doc__)
    parser.add_argument("subcommand", choices=COMMANDS, help="what to do")
    chosen = parser.parse_args(sys.argv[1:2])
    set_up_logging()
    COMMANDS[chosen.subcommand](sys.argv[2:])


if __name__ == "__main__":
    exit_with_message(main)
