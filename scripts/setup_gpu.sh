# shellcheck shell=bash
# Helpers of setup.sh: whether Horovod can be built for GPUs here. Without that, several workers
# train on the CPU (docs/training.md). Looks for files and commands only, as every `make` asks.
: "${venv:?the folder of the environment}"

has_gpu() {
  command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1
}

has_nccl_headers() {
  local root
  for root in "${HOROVOD_NCCL_HOME:-}" "${CUDA_HOME:-/usr/local/cuda}" /usr; do
    if [[ -n $root && -f $root/include/nccl.h ]]; then
      return
    fi
  done
  return 1
}

# Reads what torch says of itself: to import it would take seconds.
torch_has_cuda() {
  grep -qs '^cuda.* = .*[0-9]' "$venv"/lib/python3*/site-packages/torch/version.py
}

# Prints what a machine with a GPU lacks to build Horovod for it, one line each.
missing_for_gpu() {
  command -v nvcc >/dev/null || echo "CUDA's compiler (nvcc)"
  has_nccl_headers || echo "NCCL's headers (nccl.h)"
  torch_has_cuda || echo "a torch that was built with CUDA"
}

# Prints what Horovod can be built for.
horovod_kind() {
  if has_gpu && [[ -z $(missing_for_gpu) ]]; then
    echo gpu
  else
    echo cpu
  fi
}

# Says which Horovod of KIND there is, and what a machine with a GPU lacks for the other one.
tell_horovod() {
  if [[ $1 == gpu ]]; then
    printf 'Horovod for GPUs (NCCL)\n'
  elif ! has_gpu; then
    printf 'Horovod for the CPU (Gloo)\n'
  else
    printf 'Horovod for the CPU (Gloo): one worker can train on a GPU, several train on the CPU.\n'
    printf '    For GPUs this machine lacks: %s.\n' "$(missing_for_gpu | paste -sd, | sed 's/,/, /g')"
    printf '    Install with: sudo apt-get install -y cuda-toolkit libnccl-dev (from NVIDIA), then: make setup\n'
  fi
}
