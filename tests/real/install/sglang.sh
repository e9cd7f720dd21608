#!/usr/bin/env bash
# A real SGLang, which uses torch and transformers of vLLM's environment: 0.3 GB of disk besides that. Most of what it
# requires is for GPUs, and only imported where there is one.
name=sglang version=0.5.23
. "$(dirname "$0")/common.sh"

vllm=$("$install/vllm.sh")
if ! is_ready "$vllm"; then
  environment "$vllm"
  packages --no-deps "sglang==$version"
  packages ipython orjson gguf soundfile
  # The real torchvision is built for CUDA. Only names of it are imported.
  cp "$install/torchvision_names.py" "$home/site/torchvision.py"
  touch "$home/ready"
fi
echo "$home"
