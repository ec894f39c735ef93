#!/usr/bin/env bash
# Resolves requirements/*.in into requirements/*.lock anew; uv does it, from an environment thrown away afterwards.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../requirements"

# The newest packages that Airflow's lock may take: Airflow asks for a constraints file and misbehaves with
# dependencies much newer than itself; a date does the same work. Raise it together with Airflow's version.
readonly airflow_date=2026-09-20

compile() {
  local name=$1
  shift
  echo "resolving $name.in"
  "$tools/bin/uv" pip compile -q --upgrade --generate-hashes --python-version 3.11 \
    --custom-compile-command "make lock" "$@" "$name.in" -o "$name.lock"
}

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools"
"$tools/bin/python" -m pip install --no-input --disable-pip-version-check -q uv

compile main
compile build
compile s3 --override s3.overrides
compile dev --override s3.overrides
compile tracking
compile jobs
compile report
compile browser
compile petastorm --no-deps
compile horovod --no-deps
compile peers --override peers.overrides
compile airflow --override airflow.overrides --exclude-newer "$airflow_date"
