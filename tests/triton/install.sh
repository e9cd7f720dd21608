#!/usr/bin/env bash
# Installs a real Triton for CPUs into an environment of its own: the binary and the Python backend of the wheel of
# PyTriton. Idempotent: a finished environment (marked by the file `ready`) is used as it is. Prints the environment's
# path. Needs Python 3.11 on x86-64 with glibc 2.35 or newer, and some 0.4 GB of disk; CLASSIFY_TRITON_HOME says where
# (default: the user's cache).
set -euo pipefail
pytriton=0.7.0
home=${CLASSIFY_TRITON_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/classify-tests/pytriton-$pytriton}
python=${PYTHON:-python3}

if [ ! -f "$home/ready" ]; then
  rm -rf "$home"
  mkdir -p "$home"
  "$python" -m venv "$home/venv"
  "$home/venv/bin/python" -m pip install --quiet --disable-pip-version-check "nvidia-pytriton==$pytriton" "numpy<2" >&2
  site=$("$home/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  version=$("$home/venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  cp -r "$site/pytriton/tritonserver/backends" "$home/backends"
  cp "$site/pytriton/tritonserver/python_backend_stubs/$version/triton_python_backend_stub" "$home/backends/python/"
  ln -s "$site" "$home/site"
  touch "$home/ready"
fi
echo "$home"
