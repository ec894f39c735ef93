"""Profile samples: rates, coverage, list lengths, ids and collisions per field; gates; proposed buckets.

    python -m jobs.profile_samples --samples samples/split=test --against samples/split=train \\
        --config configs/demo.yaml --out samples/_profile.json
    spark-submit --properties-file configs/spark/yarn.conf --py-files dist/jobs.zip \\
        jobs/profile_samples.py --samples hdfs://namenode:8020/samples/split=test --out profile.json

With --against (the other half, or the samples of some days, a comma between them) also drift: the share of
ids that the other set has not, and the population stability index per field. docs/profile.md says what each
figure means.
Exit code 2 after everything is written where a gate of the configuration is broken.
"""

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # spark-submit puts this folder on the path, not the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pyspark.sql import SparkSession

from cli.arguments import CommandParser
from cli.errors import exit_with_message
from cli.log import set_up_logging
from cli.version import WRITTEN_BY
from jobs import progress
from jobs.profiling import profile_fields as content
from jobs.profiling import spark_counts as tables
from jobs.profiling.config import ProfileConfig, load_profile_config
from jobs.profiling.gates import judge, require_kept
from jobs.profiling.id_figures import id_table_path, read_id_table
from jobs.profiling.merge import FEW_BUCKETS
from jobs.profiling.tally import BUCKET, SIZE
from jobs.profiling.tasks import Work
from jobs.profiling.text import format_profile
from jobs.session import spark_session, task_errors_as_input_errors
from schemas import joined, manifest
from schemas.ids import IdManifest
from schemas.manifest import Manifest, SampleSet
from schemas.profile import GateReport, Profile, ProfileSource
from schemas.schema import Schema
from storage.json_files import write_json

# Chunks of counts are rows of 32 kB: few of them make a batch of some megabytes.
SPARK_OPTIONS = {"spark.sql.execution.arrow.maxRecordsPerBatch": "256", "spark.driver.memory": "2g"}

LOG = logging.getLogger(__name__)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("jobs.profile_samples", __doc__)
    parser.add_argument("--samples", required=True, metavar="DIR", help="written by jobs.build_samples")
    parser.add_argument(
        "--against", metavar="DIR[,DIR]", help="other samples of the same buckets, several as one; '': none"
    )
    parser.add_argument(
        "--ids", metavar="DIR", help="id table or report by jobs.build_ids, for exact figures"
    )
    parser.add_argument("--config", metavar="YAML", help="file whose section `profile` is used")
    parser.add_argument(
        "--out", default="profile.json", metavar="FILE", help="default: %(default)s; replaced if there"
    )
    return parser.parse_args(argv)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    inputs = read_inputs(args.samples, args.against or None, args.ids)
    settings = load_profile_config(args.config, inputs.schema)
    spark = spark_session("esmm profile_samples", **SPARK_OPTIONS)
    try:
        profile = run(spark, inputs, settings, args.out)
    finally:
        spark.stop()
    print(format_profile(profile))
    print(f"written to {args.out}", flush=True)
    require_kept(profile["gates"], args.samples, args.out)


@dataclass(frozen=True)
class Inputs:
    """What a profile is made of; None where there is none. against: as it was given."""

    samples: str
    ours: Manifest
    against: str | None
    theirs: SampleSet | None
    ids: str | None
    id_table: IdManifest | None

    @property
    def schema(self) -> Schema:
        """The fields of both sets, with the buckets that they were built with."""
        return manifest.schema_of(self.ours)


def read_inputs(samples: str, against: str | None = None, ids: str | None = None) -> Inputs:
    """The manifests; an `InputError` where one is not there or they do not fit. against: folders, a comma
    between them."""
    ours = manifest.read(samples)
    theirs = joined.read(against.split(",")) if against is not None else None
    if theirs is not None:
        manifest.require_same(theirs, SampleSet(samples, ours))
    return Inputs(
        samples=samples,
        ours=ours,
        against=against,
        theirs=theirs,
        ids=id_table_path(ours, ids),
        id_table=read_id_table(samples, ours, ids),
    )


def run(spark: SparkSession, inputs: Inputs, settings: ProfileConfig, out: str) -> Profile:
    """Count, put together, judge, and write the profile whole to `out`."""
    work = tables.work_of(spark, True, inputs.samples, inputs.ours)
    LOG.info("looking for duplicate sample ids in %s", inputs.samples)
    with (
        task_errors_as_input_errors(),
        progress.shown(spark, ("reading sample ids", "looking for repeated ones")),
    ):
        duplicates = tables.num_duplicates(spark, work, inputs.schema)
    if inputs.theirs is not None:
        work += tables.work_of(spark, False, *inputs.theirs)
    LOG.info("counting %d files in %d tasks", sum(len(task.files) for task in work), len(work))
    with task_errors_as_input_errors(), progress.shown(spark, ("reading samples", "adding up the counts")):
        found = count(spark, work, inputs.schema, inputs.theirs is not None)
    profile = put_together(inputs, found, duplicates, settings)
    profile["gates"] = judge(profile, settings.gates)
    write_json(out, dict(profile))
    return profile


def count(spark: SparkSession, work: list[Work], schema: Schema, with_drift: bool) -> content.Found:
    """Everything that Spark has to find but duplicates, in one pass over the files."""
    with tables.counted(spark, work, schema) as table:
        found = content.Found(tables.summarise(table), {})
        if not with_drift:
            return found
        used = [found.of(BUCKET, position)["ranking_used"] for position in range(len(schema.fields))]
        few_used = [position for position, num in enumerate(used) if num <= FEW_BUCKETS]
        return found._replace(bins=tables.binned(table, few_used))


def put_together(inputs: Inputs, found: content.Found, duplicates: int, settings: ProfileConfig) -> Profile:
    """The profile before its gates are judged; an `InputError` where files and manifests disagree."""
    counts = content.counts_of(inputs.ours)
    theirs = inputs.theirs.manifest if inputs.theirs else None
    content.check_counts(inputs.samples, counts, found, "ours")
    source = ProfileSource(
        samples=inputs.samples,
        against=inputs.against,
        ids=inputs.ids,
        fingerprint=inputs.ours["fingerprint"],
    )
    profile = Profile(
        source=source,
        counts=counts,
        rates=content.rates_of(counts),
        impressions_per_context=content.lengths_of(found.of(SIZE)),
        duplicate_sample_ids=duplicates,
        quarantine=content.quarantine_of(inputs.ours),
        fields=content.fields_of(found, inputs.schema, inputs.id_table, settings, theirs is not None),
        gates=GateReport(judged=0, skipped=[], broken=[]),
        written_by=WRITTEN_BY,
    )
    if numbers := content.numbers_of(inputs.ours, theirs):
        profile["numbers"] = numbers
    if inputs.against is not None and theirs is not None:
        content.check_counts(inputs.against, content.counts_of(theirs), found, "against")
        profile["against"] = content.against_of(profile["rates"], theirs)
    return profile


if __name__ == "__main__":
    exit_with_message(main)
