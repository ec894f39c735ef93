#!/usr/bin/env bash
# Prints the path of a Horovod wheel that fits the torch of .venv; builds it when the cache has none.
#   scripts/build_horovod.sh cpu     exchanges by Gloo
#   scripts/build_horovod.sh gpu     what lies on GPUs by NCCL
#
# Horovod's last release predates torch 2.1: its build asks for C++14 while torch's headers need C++17. There is no
# wheel of it, and building takes minutes, so the result is kept outside the project folder for all clones.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly venv=$PWD/.venv
readonly lock=$PWD/requirements/horovod.lock
readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/esmm/wheels
export PATH=$venv/bin:$PATH

# Everything that a wheel depends on, this recipe included.
cache_key() {
  local version torch recipe
  version=$(sed -n 's/^horovod==\([^ ]*\).*/\1/p' "$lock")
  torch=$(python -c 'import torch; print(torch.__version__)')
  recipe=$(sha256sum <"${BASH_SOURCE[0]}" | cut -c1-8)
  printf 'horovod-%s-torch-%s-%s-%s-%s-%s' "$version" "$torch" \
    "$(python -c 'import sys; print(sys.implementation.cache_tag)')" "$(uname -m)" "$1" "$recipe"
}

fetch_and_patch() {
  python -m pip download --no-input --disable-pip-version-check -q --no-deps --no-build-isolation \
    --no-binary horovod --require-hashes -r "$lock" -d "$1"
  tar -xzf "$1"/horovod-*.tar.gz -C "$1" --one-top-level=source --strip-components=1
  sed -i 's/CMAKE_CXX_STANDARD 14/CMAKE_CXX_STANDARD 17/' \
    "$1/source/CMakeLists.txt" "$1/source/horovod/torch/CMakeLists.txt"
  # Gloo's socket thread asks again at once while another thread holds a connection's lock. With a worker on every
  # core it takes the time that the lock's holder needs: a sixth of all, seen with perf at batch 1024.
  local pair=$1/source/third_party/gloo/gloo/transport/tcp/pair.cc
  sed -i '/std::try_to_lock/,/return;/ s/return;/usleep(20);\n    return;/' "$pair"
  grep -q 'usleep(20)' "$pair"
  # No debug symbols: a quarter less to compile, a wheel of 1 MB in place of 18.
  sed -i 's/RelWithDebInfo/Release/' "$1/source/setup.py"
}

build() {
  if [[ $2 == gpu ]]; then
    export HOROVOD_GPU_OPERATIONS=NCCL
  fi
  export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITH_GLOO=1
  export HOROVOD_WITHOUT_MPI=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1
  MAKEFLAGS=-j$(nproc) python -m pip wheel --no-input --disable-pip-version-check \
    --no-deps --no-build-isolation --use-pep517 -w "$1/wheel" "$1/source"
}

main() {
  local kind=$1 folder wheel
  folder=$cache/$(cache_key "$kind")
  if ! compgen -G "$folder/*.whl" >/dev/null; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    fetch_and_patch "$work" >&2
    build "$work" "$kind" >&2
    wheel=$(basename "$work"/wheel/*.whl)
    mkdir -p "$folder"
    # Renamed when complete: an interrupted copy must not pass for a wheel.
    cp "$work/wheel/$wheel" "$folder/.partial.$$"
    mv "$folder/.partial.$$" "$folder/$wheel"
  fi
  compgen -G "$folder/*.whl"
}

main "${1:?cpu or gpu}"
