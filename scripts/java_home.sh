#!/usr/bin/env bash
# Prints the home of a Java that Spark 4.0 runs on; fails without a word when there is none.
set -euo pipefail

# The release file answers in a millisecond, starting a JVM takes a tenth of a second.
is_supported() {
  [[ -x $1/bin/java && -r $1/release ]] && grep -qE '^JAVA_VERSION="(17|21)[."]' "$1/release"
}

candidates() {
  [[ -z ${JAVA_HOME:-} ]] || printf '%s\n' "$JAVA_HOME"
  if command -v java >/dev/null; then
    dirname "$(dirname "$(readlink -f "$(command -v java)")")"
  fi
  printf '%s\n' /usr/lib/jvm/*17* /usr/lib/jvm/*21*
}

while read -r home; do
  if is_supported "$home"; then
    printf '%s\n' "$home"
    exit 0
  fi
done < <(candidates)
exit 1
