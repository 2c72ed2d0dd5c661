# shellcheck shell=bash
# Sourced by bin/model, bin/serve, bin/test and bin/bench: where things live, what Debian must bring, how to say no.
set -euo pipefail

# shellcheck disable=SC2034 # used by who sources this
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${CHATCORN_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set: set it, or CHATCORN_CACHE to a directory}/.cache}/chatcorn}
cache=$(realpath -m "$cache")
export CHATCORN_CACHE=$cache

say() { printf '%s\n' "$*" >&2; }
die() {
  say "bin/$(basename "$0"): $*"
  exit 1
}

# The Debian packages among `thing:package` words whose thing is not there: a command, or a path with wildcards.
missing() {
  local word thing
  for word; do
    thing=${word%:*}
    case $thing in
      /*) compgen -G "$thing" >/dev/null || echo "${word##*:}" ;;
      *) command -v "$thing" >/dev/null || echo "${word##*:}" ;;
    esac
  done
}

# shellcheck disable=SC2034 # used by who sources this
build_needs=(cmake:cmake clang:clang make:make c++:g++ '/usr/lib/llvm-*/lib/libclang.so*:libclang-dev')
[ -z "${LIBCLANG_PATH:-}" ] || unset 'build_needs[4]'

has_pip() { { python3 -m pip --version || /usr/bin/python3 -m pip --version; } >/dev/null 2>&1; }

# Installs what `missing` names; as root or by sudo without a question, else says what to run.
need() {
  local packages=() as=()
  mapfile -t packages < <(missing "$@")
  [ ${#packages[@]} -gt 0 ] || return 0
  local apt="apt-get install -y --no-install-recommends ${packages[*]}"
  command -v apt-get >/dev/null || die "this machine has no apt-get; install what Debian calls ${packages[*]}, then run this again."
  if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || die "these Debian packages are missing. Run this, then try again:
    sudo apt-get update && sudo $apt"
    as=(sudo -n)
  fi
  say "installing ${packages[*]} (apt-get)"
  # shellcheck disable=SC2086 # the words of $apt are meant to be split
  (if [[ ${packages[*]} =~ redis|postgres|nginx ]]; then without_services "${as[@]}"; fi
    "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 update &&
    "${as[@]}" env DEBIAN_FRONTEND=noninteractive ${apt/apt-get/apt-get -qq -o DPkg::Lock::Timeout=120}) >&2 ||
    die "apt-get failed, see above. Mend it and run this again, or run by hand: apt-get update && $apt"
}

# Keeps Debian from starting the services that a package brings, until this subshell ends: tests start their own.
without_services() {
  local policy=/usr/sbin/policy-rc.d
  [ -e $policy ] && return
  # shellcheck disable=SC2064 # the words as they are now
  trap "$* rm -f $policy" EXIT
  printf '#!/bin/sh\nexit 101\n' | "$@" tee $policy >/dev/null
  "$@" chmod 755 $policy
}

# Where cargo builds: one directory of the cache for every checkout, so that llama.cpp is built once. Its stamp says
# for which compiler, processor and flags: code for another processor's instructions would die by SIGILL.
target_dir() {
  local dir=$cache/target mark
  [ -z "${CARGO_TARGET_DIR:-}" ] || { realpath -m "$CARGO_TARGET_DIR" && return; }
  command -v cargo >/dev/null || die "Rust is missing: install it (rustup's stable toolchain, 1.95 or newer), then run this again."
  mark=$({ rustc -vV && grep -m1 -iE '^(flags|features)' /proc/cpuinfo && echo "${RUSTFLAGS:-}"; } | sha256sum | cut -c1-16)
  mkdir -p "$dir" || die "$dir cannot be made: set CHATCORN_CACHE to a directory of yours."
  [ -s "$dir/.made-for" ] || echo "$mark" >"$dir/.made-for"
  [ "$(cat "$dir/.made-for")" = "$mark" ] || dir=$cache/target-$mark
  echo "$dir"
}
