#!/usr/bin/env bash
# A real Infinity, which uses the torch of vLLM's environment: 0.5 GB of disk besides that.
name=infinity version=0.0.78
. "$(dirname "$0")/common.sh"

vllm=$("$install/vllm.sh")
if ! is_ready "$vllm"; then
  environment "$vllm"
  packages "infinity-emb[server,torch]==$version" "transformers>=4.47,<5" # without its extra `optimum`, which needs an older one
  touch "$home/ready"
fi
echo "$home"
