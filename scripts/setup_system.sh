# shellcheck shell=bash
# Helpers of setup.sh: what has to be on the machine before an environment can be made.

# Prints an interpreter of the version that the locks are made for.
find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3 python; do
    if [[ -n $candidate ]] && command -v "$candidate" >/dev/null \
      && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

# Debian keeps pip's installer and the C headers out of its python3.11 package.
missing_python_parts() {
  local python=$1
  "$python" -c 'import ensurepip' 2>/dev/null || echo python3.11-venv
  "$python" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null \
    || echo python3.11-dev
}

# Prints the names of the Debian packages that the machine lacks for TARGET.
missing_packages() {
  local python
  if [[ $1 == browser ]]; then
    command -v chromium >/dev/null || echo chromium
    [[ -d /usr/share/fonts/truetype/dejavu ]] || echo fonts-dejavu-core
    return
  fi
  if python=$(find_python); then
    missing_python_parts "$python"
  else
    printf '%s\n' python3.11 python3.11-venv python3.11-dev
  fi
  if [[ $1 == main ]]; then
    scripts/java_home.sh >/dev/null || echo openjdk-17-jre-headless
    command -v g++ >/dev/null || echo g++
    command -v make >/dev/null || echo make
  fi
}

apt_install() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -q -y --no-install-recommends "$@"
}

# Installs what is missing where we may; otherwise names it with the command that installs it.
require_system_packages() {
  local missing
  mapfile -t missing < <(missing_packages "$1")
  if [[ ${#missing[@]} -eq 0 ]]; then
    return
  fi
  if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
    timed "system packages: ${missing[*]}" apt_install "${missing[@]}"
    mapfile -t missing < <(missing_packages "$1")
  fi
  if [[ ${#missing[@]} -gt 0 ]]; then
    say "missing on this machine: ${missing[*]}. Install with:" >&2
    printf '    sudo apt-get install -y %s\n' "${missing[*]}" >&2
    printf 'or, without apt, the same by the names of your system: Java 17 (or 21), g++, make, Python 3.11.\n' >&2
    exit 1
  fi
}
