# Sourced by the scripts beside it, which install one real server each, after they have set `name` and `version`.
# They are idempotent: a finished server (marked by the file `ready`) is used as it is. Each prints the folder of its own,
# below CLASSIFY_SERVERS_HOME (default: in the user's cache).
# shellcheck shell=bash disable=SC2154 # name, version
set -euo pipefail
install=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${CLASSIFY_SERVERS_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/classify-tests}/$name-$version

# Whether it is there, and uses the environment in the folder $1, if one is named.
is_ready() { [ -f "$home/ready" ] && { [ $# -eq 0 ] || [ "$(cat "$home/site/shared.pth")" = "$(site_of "$1")" ]; }; }

# A new environment in $home/venv, with its packages in $home/site. Packages of the environment in the folder $1, if one is
# named, are seen there as well, after its own: torch need not be there twice.
environment() {
  rm -rf "$home"
  mkdir -p "$home"
  "${PYTHON:-python3}" -m venv "$home/venv"
  ln -s "$(site_of "$home")" "$home/site"
  if [ $# -gt 0 ]; then site_of "$1" > "$home/site/shared.pth"; fi
}

site_of() { "$1/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])'; }

packages() { "$home/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-warn-conflicts "$@" >&2; }
