#!/bin/bash
# Installs what deploy/packages.txt lists for the given purposes, when something of it is missing: packages.sh build run test
set -euo pipefail
list=$(dirname "$(readlink -f "$0")")/../../deploy/packages.txt

missing() {
        local package uses unless purpose
        while read -r package uses unless; do
                case "$package" in '' | '#'*) continue ;; esac
                for purpose in "$@"; do
                        case ",$uses," in *",$purpose,"*) ;; *) continue ;; esac
                        if [ -z "$unless" ] || ! command -v "$unless" >/dev/null; then
                                dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || printf '%s\n' "$package"
                        fi
                        break
                done
        done <"$list"
}

retry() {
        local try
        for try in 1 2 3; do
                if timeout 600 "$@"; then
                        return 0
                fi
                echo "packages: \"$*\" failed (try $try of 3)" >&2
                sleep $((try * 5))
        done
        return 1
}

mapfile -t packages < <(missing "$@")
if [ ${#packages[@]} -eq 0 ]; then
        echo "packages: all there for: $*"
        exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "packages: missing, and only root on Debian can install them here: ${packages[*]}" >&2
        exit 1
fi
echo "packages: installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
# A package that starts its daemon on installation would change this machine (docker.io does): forbid that for the time of the installation.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        trap 'rm -f "$policy"' EXIT
fi
retry apt-get -qq -o DPkg::Lock::Timeout=120 update </dev/null
retry apt-get -qq -y -o DPkg::Lock::Timeout=120 --no-install-recommends install "${packages[@]}" </dev/null >/dev/null
mapfile -t packages < <(missing "$@")
if [ ${#packages[@]} -ne 0 ]; then
        echo "packages: still missing: ${packages[*]}" >&2
        exit 1
fi
