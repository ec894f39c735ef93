"""Make a page of a run's evaluation, or one over all runs of a folder.

    python -m jobs.make_report --run build/demo/default/run
    python -m jobs.make_report --run run --profile samples/_profile.json --stages stages.json
    python -m jobs.make_report --run runs/first --runs runs

--run reads metrics.json of jobs.evaluate and writes report.html beside it: one file without scripts, for any
browser, that asks the network for nothing. --runs writes index.html over all folders in there that have a
metrics.json. What is optional and not there is left out. docs/report.md says how to read the page.
"""

import argparse

from cli.arguments import CommandParser
from cli.errors import InputError, exit_with_message
from cli.log import set_up_logging
from jobs.report.inputs import METRICS_NAME, REPORT_NAME, find_runs, has_report, read_run
from jobs.report.page import Line, index, report
from schemas.metrics import read_metrics
from storage.json_files import write_text


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("jobs.make_report", __doc__)
    parser.add_argument("--run", metavar="DIR", help="folder with a metrics.json; gets a report.html")
    parser.add_argument("--runs", metavar="DIR", help="folder of such folders; gets an index.html")
    parser.add_argument(
        "--profile", metavar="FILE", action="append", default=[], help="by jobs.profile_samples; repeatable"
    )
    parser.add_argument("--stages", metavar="FILE", help="JSON list of stages: name, command, seconds")
    args = parser.parse_args(argv)
    if args.run is None and args.runs is None:
        parser.error("expected --run or --runs, found neither.")
    if args.run is None and (args.profile or args.stages):
        parser.error("--profile and --stages go with --run.")
    return args


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    if args.run is not None:
        print(f"written to {write_report(args.run, args.profile, args.stages)}")
    if args.runs is not None:  # after the report, which it links to
        print(f"written to {write_index(args.runs)}")


def write_report(run: str, profiles: list[str], stages: str | None = None) -> str:
    """Write the page of a run; its path."""
    path = run.rstrip("/") or run
    out = f"{path}/{REPORT_NAME}"
    write_text(out, report(read_run(path, profiles, stages)))
    return out


def write_index(folder: str) -> str:
    """Write the page over all runs; its path. A run of an older format has a line that says so."""
    path = folder.rstrip("/") or folder
    out = f"{path}/index.html"
    write_text(out, index(path, [_line(path, run) for run in find_runs(path)]))
    return out


def _line(folder: str, run: str) -> Line:
    linked = has_report(folder, run)
    where = "/".join(part for part in (folder, run, METRICS_NAME) if part)
    try:
        return Line(run, read_metrics(where), linked)
    except InputError as error:
        return Line(run, None, linked, str(error))


if __name__ == "__main__":
    exit_with_message(main)
