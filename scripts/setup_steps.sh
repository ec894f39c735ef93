# shellcheck shell=bash
# Helpers of setup.sh: steps that are timed, logged, and skipped when they succeeded before.
: "${venv:?the folder of the environment}" "${log:?the file that takes all output}"

current_step=

say() {
  printf 'set-up: %s\n' "$*"
}

content_hash() {
  cat -- "$@" | sha256sum | cut -c1-16
}

# is_stamped NAME KEY: whether step NAME has succeeded with this KEY.
is_stamped() {
  [[ -f $venv/.stamps/$1 && $(<"$venv/.stamps/$1") == "$2" ]]
}

# stamp NAME KEY: written by renaming, so that it is there whole or not at all.
stamp() {
  mkdir -p "$venv/.stamps"
  printf '%s\n' "$2" >"$venv/.stamps/.$1"
  mv "$venv/.stamps/.$1" "$venv/.stamps/$1"
}

# timed TITLE COMMAND...: one line with the title and the seconds; all output goes to the log.
timed() {
  local title=$1 began=$SECONDS
  shift
  current_step=$title
  printf 'set-up: %s ... ' "$title"
  printf '\n=== %s\n' "$title" >>"$log"
  "$@" >>"$log" 2>&1
  current_step=
  printf '%d s\n' $((SECONDS - began))
}

# step NAME KEY TITLE COMMAND...: runs COMMAND unless it succeeded before with the same KEY.
step() {
  local name=$1 key=$2
  shift 2
  if ! is_stamped "$name" "$key"; then
    timed "$@"
    stamp "$name" "$key"
  fi
}

# For the EXIT trap: names the step that failed and shows why. Descriptor 3 is the terminal's standard error.
report_failure() {
  if [[ $1 -ne 0 && -n $current_step ]]; then
    printf '\nset-up failed at: %s\nThe last lines of %s:\n' "$current_step" "$log" >&3
    tail -n 25 "$log" | sed 's/^/  /' >&3
    printf 'Running the same command again resumes here.\n' >&3
  fi
}
