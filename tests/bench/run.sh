#!/bin/bash
# Figures, or the long run under disturbance, as root on a machine that has built the tree: installs into a folder of its own, brings up a rig
# of its own, runs, takes everything down.
#
#   tests/bench/run.sh bench BUILDDIR [--quick] [ARGS FOR bench.py…]
#   tests/bench/run.sh gateway BUILDDIR [--quick] [ARGS FOR gateway.py…]     the gateway's part of bench alone
#   tests/bench/run.sh soak BUILDDIR [ARGS FOR soak.py…]
#
# bench prints figures beside their goals and never fails because of one; soak fails when something leaked, stayed broken or piled up.
set -uo pipefail
here=$(dirname "$(readlink -f "$0")")
tests=$(dirname "$here")
rig=$tests/rig/rig
RIG_NAME=b$(($$ % 100000))
export RIG_NAME
# shellcheck source=../rig/lib.sh disable=SC1091
. "$tests/rig/lib.sh"

usage() {
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2
        exit 64
}
[ $# -ge 2 ] || usage
mode=$1 build=$(readlink -f "$2")
shift 2
case "$mode" in bench | gateway | soak) ;; *) usage ;; esac
[ "$(id -u)" -eq 0 ] || { echo "needs root: it brings up an Engine and network namespaces of its own" >&2; exit 77; }
scale=() gateway=()
if [ "${1:-}" = --quick ]; then
        shift
        gateway=(--rounds 2 --calls 500 --servers 8 --sessions 500)
        [ "$mode" = gateway ] || set -- --servers 8 --many 16 --rounds 1 --idle 10 "$@"
        scale=(--counts 100 --rounds 5 --idle 10)
fi

child=''
finish() {
        trap '' INT TERM HUP
        if [ -n "$child" ]; then
                kill -TERM "$child" 2>/dev/null
                wait "$child" 2>/dev/null
        fi
        "$rig" down
}
# In the background, so that a signal is acted on at once.
step() {
        "$@" </dev/null &
        child=$!
        wait "$child"
        local rc=$?
        child=''
        return "$rc"
}

"$rig" stale
trap finish EXIT
trap 'exit 130' INT TERM HUP
step timeout -k 60 1200 "$rig" up --owner $$ || exit 1
# Readable by the rig's users, writable by root alone, as on a host.
step make -s -C "$build" install prefix=/usr exec_prefix=/usr DESTDIR="$RIG_DATA/root" >"$RIG_RUN/install.log" 2>&1 || { tail -n 20 "$RIG_RUN/install.log"; exit 1; }
step timeout 300 "$rig" fixtures "$build" || exit 1
export BULKHEAD_ROOT=$RIG_DATA/root BULKHEAD_BUILD=$build PYTHONDONTWRITEBYTECODE=1
python=/usr/bin/python3
[ -x "$python" ] || python=python3

if [ "$mode" = soak ]; then
        step "$python" "$here/soak.py" "$@"
        exit
fi
rc=0
RIG_BRIDGES=$("$rig" bridges) || RIG_BRIDGES=''
RIG_NPM=$("$rig" env | sed -n 's/^RIG_NPM=//p')
RIG_BROKER=$("$rig" env | sed -n 's/^RIG_BROKER=//p')
export RIG_BRIDGES RIG_NPM RIG_BROKER
if [ "$mode" = gateway ]; then
        step "$python" "$here/gateway.py" "${gateway[@]}" "$@"
        exit
fi
step "$python" "$here/bench.py" "$@" || rc=1
step "$python" "$here/scale.py" "${scale[@]}" || rc=1
step "$python" "$here/gateway.py" "${gateway[@]}" || rc=1
[ "$rc" -eq 0 ] || echo "some figures could not be taken, see above"
exit "$rc"
