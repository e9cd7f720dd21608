#!/usr/bin/env bash
# A real Triton for CPUs: the binary and the Python backend of the wheel of PyTriton, whose version this is. Needs Python
# 3.11 on x86-64 with glibc 2.35 or newer, and 0.4 GB of disk.
name=pytriton version=0.7.0
. "$(dirname "$0")/common.sh"

if ! is_ready; then
  environment
  packages "nvidia-pytriton==$version" "numpy<2"
  cp -r "$home/site/pytriton/tritonserver/backends" "$home/backends"
  python=$("$home/venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  cp "$home/site/pytriton/tritonserver/python_backend_stubs/$python/triton_python_backend_stub" "$home/backends/python/"
  touch "$home/ready"
fi
echo "$home"
