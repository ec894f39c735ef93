#!/usr/bin/env bash
# Sets up an environment; returns at once when nothing has changed since the last time.
#   scripts/setup.sh            .venv: Spark, training, tests and linters
#   scripts/setup.sh browser    what tests of the report need, into .venv, which is there already
#   scripts/setup.sh airflow    .venv-airflow: the scheduler, whose pins exclude those of .venv
# Variables: PYTHON (an interpreter of version 3.11), XDG_CACHE_HOME (where Horovod's wheel is kept).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly torch_version=2.13.0
readonly target=${1:-main}
case $target in
  main|browser) venv=$PWD/.venv ;;
  airflow) venv=$PWD/.venv-airflow ;;
  *) echo "usage: scripts/setup.sh [main|browser|airflow]" >&2; exit 2 ;;
esac
readonly venv log=$PWD/build/setup-$target.log

# shellcheck source=scripts/setup_steps.sh
. scripts/setup_steps.sh
# shellcheck source=scripts/setup_system.sh
. scripts/setup_system.sh
# shellcheck source=scripts/setup_gpu.sh
. scripts/setup_gpu.sh

make_venv() {
  rm -rf "$venv"
  "$1" -m venv "$venv"
  mkdir "$venv/.stamps"
}

pip_install() {
  # A pip stopped halfway leaves packages that look installed: the mark makes the next run start from an empty folder.
  touch "$venv/.stamps/unfinished"
  "$venv/bin/python" -m pip install --no-input --disable-pip-version-check -q --no-compile "$@"
  rm "$venv/.stamps/unfinished"
}

# The locks name every package, so pip has nothing to resolve: faster, and pip 23 fails on extras with hashes.
install_locked() {
  local name arguments=(--require-hashes --no-deps --no-build-isolation)
  for name in "$@"; do
    arguments+=(-r "requirements/$name.lock")
  done
  pip_install "${arguments[@]}"
}

# horovod_key KIND: the last word says what is installed, cpu or gpu.
horovod_key() {
  printf '%s %s %s' "$torch_version" "$(content_hash requirements/horovod.lock scripts/build_horovod.sh)" "$1"
}

# A Horovod for GPUs stays: its tool chain may be there in one shell and not in the next (`module load`).
wanted_horovod() {
  if is_stamped horovod "$(horovod_key gpu)"; then
    echo gpu
  else
    horovod_kind
  fi
}

# install_horovod KIND
install_horovod() {
  local wheel
  wheel=$(scripts/build_horovod.sh "$1")
  rm -f "$venv/.stamps/ready"  # what was checked before says nothing of this one
  pip_install --no-deps --force-reinstall "$wheel"
}

# Without it jobs start all the same, only later: no reason to stop.
archive_classes() {
  JAVA_HOME=$(scripts/java_home.sh) "$venv/bin/python" -m scripts.class_archive ||
    say "no archive of Spark's classes, see $log: jobs will take longer to start" >&3
}

check_main() {
  "$venv/bin/python" -W ignore -c 'import horovod.torch, numba, petastorm.reader, pyspark, torch'
  "$venv/bin/horovodrun" --check-build
}

set_up_main() {
  local kind
  step build-tools "$(content_hash requirements/build.lock)" "build tools" install_locked build
  step packages "$(content_hash requirements/{main,dev}.lock)" "packages of main.lock and dev.lock" \
    install_locked main dev
  # Apart from main.lock, as only paths on s3:// need it; here for their tests.
  step s3 "$(content_hash requirements/s3.lock)" "s3fs for s3://" install_locked s3
  # Apart too, as training needs none of it; here for the tests of `tracking`.
  step tracking "$(content_hash requirements/tracking.lock)" "MLflow's client and TensorBoard" install_locked tracking
  # Apart too: only jobs.make_report draws.
  step report "$(content_hash requirements/report.lock)" "matplotlib and Jinja2 for reports" install_locked report
  # By plain pip, without a hash: which build of torch fits depends on the machine, and only pip picks it.
  step torch "$torch_version" "torch $torch_version" pip_install "torch==$torch_version"
  # Apart from main.lock: its metadata asks for a setuptools that torch excludes, though it works with a newer one.
  step petastorm "$(content_hash requirements/petastorm.lock)" "petastorm" install_locked petastorm
  kind=$(wanted_horovod)
  step horovod "$(horovod_key "$kind")" "Horovod (its first build takes minutes)" install_horovod "$kind"
  say "$(tell_horovod "$kind")"
  step classes "$(content_hash requirements/main.lock scripts/class_archive.py) $(scripts/java_home.sh)" \
    "archive of Spark's classes, for jobs that start faster" archive_classes
  step ready "$1" "check that everything loads" check_main
}

# What opens reports in a browser; asked for by `make test-report` alone, so the system keeps its packages otherwise.
set_up_browser() {
  require_system_packages browser
  step browser "$(content_hash requirements/browser.lock)" "playwright and axe-core" install_locked browser
}

set_up_airflow() {
  step packages "$(content_hash requirements/airflow.lock)" "packages of airflow.lock" install_locked airflow
  step ready "$1" "check that everything loads" "$venv/bin/python" -W ignore -c 'import airflow.sdk'
}

set_up() {
  local python
  require_system_packages "$target"
  python=$(find_python)
  if [[ -e $venv/.stamps/unfinished ]]; then
    say "an earlier set-up did not finish, starting anew"
    rm -rf "$venv"
  fi
  step venv "$PWD $("$python" -VV)" "$(basename "$venv")" make_venv "$python"
  "set_up_$target" "$1"
}

# Everything that decides what the environments hold. The folder too: an environment does not survive being moved.
environment_key() {
  printf '%s %s' "$PWD" "$(content_hash requirements/*.lock scripts/setup*.sh scripts/build_horovod.sh)"
}

# Whether Horovod is what it can be here: the tool chain of a GPU may have come since it was built.
has_best_horovod() {
  is_stamped horovod "$(horovod_key "$(wanted_horovod)")"
}

is_ready() {
  is_stamped ready "$1" && { [[ $target != main ]] || { scripts/java_home.sh >/dev/null && has_best_horovod; }; }
}

# One set-up of an environment at a time; the system drops the lock with the process.
take_turn() {
  mkdir -p build
  exec 9>>"build/setup-$target.lock"
  if ! flock -n 9; then
    say "waiting for another set-up of this folder"
    flock 9
  fi
}

main() {
  local key
  if [[ $target == browser ]]; then
    take_turn
    set_up_browser
    return
  fi
  key=$(environment_key)
  if is_ready "$key"; then
    return
  fi
  take_turn
  # The one that we waited for may have done everything.
  if ! is_ready "$key"; then
    set_up "$key"
  fi
}

exec 3>&2
trap 'report_failure $?' EXIT
main
