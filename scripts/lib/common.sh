# shellcheck shell=bash
# Helpers that every script in scripts/ sources first.

# SC2034: used by the scripts that source this file.
# shellcheck disable=SC2034
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck disable=SC2034
CACHE=$REPO/.cache

# Installing packages from another user's shell often leaves sbin off the PATH.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# One line with the seconds since the script started.
say() {
    printf '[%4ds] %s\n' "$SECONDS" "$*"
}

# Ends the script: what is wrong, then what to do about it.
#
# die WRONG [MEND]
die() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    if [ $# -gt 1 ]; then printf '  what to do: %s\n' "$2" >&2; fi
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

require_root() {
    [ "$(id -u)" = 0 ] || die "needs root" "run as root: $0 $*"
}

# The packages are named, and were measured, on this release only.
require_debian_12() {
    local codename=none
    if [ -r /etc/os-release ]; then
        codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-none}")
    fi
    [ "$codename" = bookworm ] ||
        die "made for Debian 12 (bookworm), this is \"$codename\"" \
            "use a Debian 12 machine or virtual machine"
    [ "$(dpkg --print-architecture)" = amd64 ] ||
        die "made for amd64, this is $(dpkg --print-architecture)" "use an amd64 machine"
}

# Waits until a process that the caller started has gone; kills it outright when it does not go by itself.
#
# reap PID SECONDS
reap() {
    local pid=$1 deadline=$((SECONDS + $2))
    while kill -0 "$pid" 2>/dev/null; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            kill -KILL "$pid" 2>/dev/null || true
            break
        fi
        sleep 0.1
    done
    wait "$pid" 2>/dev/null || true
}
