#!/bin/bash
# All tests, in one command, as root on a Debian 12 machine: packages, build, unit tests, rig, integration tests.
#
#   tests/run.sh [--unit] [--integration [PATTERN]] [--keep] [--builddir DIR]
#
#   --unit                   only the unit tests and the replay of the fuzz corpora
#   --integration [PATTERN]  only the integration tests (whose name contains PATTERN)
#   --keep                   leave build folder and rig for a look; the end says how to remove them
#   --builddir DIR           build there (and keep it) instead of in a folder of its own that is removed
#
# Ends with the line "N passed, N failed[, N skipped]". What a machine cannot run is skipped by name, with the reason. Everything made is taken away
# again, also when killed: what a SIGKILL leaves is found and removed by the next run.
# Environment: CONFIGURE_FLAGS, CC, RIG_CACHE, MAKE_JOBS.
set -uo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
rig=$here/rig/rig
builds=/var/tmp/bulkhead-tests-$(id -u)
unit=yes integration=yes pattern='' keep='' builddir=''

while [ $# -gt 0 ]; do
        case "$1" in
        --unit) integration='' ;;
        --integration)
                unit=''
                case "${2:-}" in '' | -*) ;; *)
                        pattern=$2
                        shift
                        ;;
                esac
                ;;
        --keep) keep=yes ;;
        --builddir)
                builddir=${2:?--builddir needs a folder}
                shift
                ;;
        *)
                sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2
                exit 64
                ;;
        esac
        shift
done

passed=0 failed=0 skipped=0 child='' rig_made='' rig_job='' own_builddir='' began=$SECONDS
# shellcheck source=rig/lib.sh disable=SC1091
RIG_NAME=t$(($$ % 100000))
export RIG_NAME
. "$here/rig/lib.sh"

progress() { printf '[%4d s] %s\n' $((SECONDS - began)) "$*"; }
pass() { passed=$((passed + 1)) && printf 'ok      %s\n' "$1"; }
flunk() { failed=$((failed + 1)) && printf 'FAILED  %s\n' "$1"; }
skip() { skipped=$((skipped + 1)) && printf 'skipped %s: %s\n' "$1" "$2"; }

# A child that is told when we die, even when we could not tell it.
fragile=(setpriv --pdeathsig TERM)
"${fragile[@]}" true 2>/dev/null || fragile=()

# limited SECONDS COMMAND...: in the background, so that a signal is acted on at once. timeout gives the command a process group of its own and passes signals on.
limited() {
        local limit=$1 rc
        shift
        "${fragile[@]}" timeout -k 20 "$limit" "$@" </dev/null &
        child=$!
        wait "$child"
        rc=$?
        child=''
        [ "$rc" -ne 124 ] || printf 'stopped after %s s: %s\n' "$limit" "$*"
        return "$rc"
}

finish() {
        local job
        trap '' INT TERM HUP
        for job in $child $rig_job; do
                kill -TERM "$job" 2>/dev/null
                wait "$job" 2>/dev/null
        done
        if [ -n "$keep" ]; then
                printf 'kept: build folder %s\n' "$builddir"
                [ -z "$rig_made" ] || printf 'kept: rig (RIG_NAME=%s %s down removes it)\n' "$RIG_NAME" "$rig"
        else
                [ -z "$rig_made" ] || "$rig" down
                [ -z "$own_builddir" ] || rm -rf -- "$own_builddir"
        fi
}
trap finish EXIT
trap 'progress "stopped by a signal"; exit 130' INT TERM HUP

# Folders of earlier runs carry "PID-STARTTIME" as their name.
remove_stale_builds() {
        local dir name
        [ -d "$builds" ] && [ -O "$builds" ] || return 0
        for dir in "$builds"/*-*; do
                name=$(basename "$dir")
                if [ -d "$dir" ] && [ ! -e "$dir/keep" ] && ! same_process "${name%-*}" "${name#*-}"; then
                        progress "removing what a killed run left: $dir"
                        rm -rf -- "$dir"
                fi
        done
}

# The tree is built as a copy: a checkout stays as it is, also one that somebody has configured in place.
copy_tree() {
        mkdir -p "$builddir/src" "$builddir/build"
        # The checkout may be somebody else's than the user's who runs this.
        if git -c safe.directory='*' -C "$top" rev-parse --git-dir >/dev/null 2>&1; then
                (cd "$top" && git -c safe.directory='*' ls-files -z -c -o --exclude-standard | while IFS= read -r -d '' f; do
                        [ ! -e "$f" ] || printf '%s\0' "$f"
                done | tar --null -T - -cf -) | tar -C "$builddir/src" -xf -
        else
                (cd "$top" && tar --exclude=./build --exclude='./build-[!a]*' -cf - .) | tar -C "$builddir/src" -xf -
        fi
}

build() {
        copy_tree || return 1
        cd "$builddir/src" || return 1
        if [ ! -e configure ] || [ ! -e build-aux/install-sh ] || [ configure.ac -nt configure ]; then
                limited 300 ./autogen.sh >"$builddir/autogen.log" 2>&1 || { tail -n 20 "$builddir/autogen.log"; return 1; }
        fi
        cd "$builddir/build" || return 1
        if [ ! -e Makefile ]; then
                # Helpers and programs end up in one folder that the rig's users can read: see install_tree.
                # shellcheck disable=SC2086
                limited 300 ../src/configure --prefix=/usr --sysconfdir=/etc --libexecdir=/usr/libexec ${CONFIGURE_FLAGS:-} >"$builddir/configure.log" 2>&1 ||
                        { tail -n 20 "$builddir/configure.log"; return 1; }
        fi
        limited 1200 make -k -j"${MAKE_JOBS:-$(nproc)}" >"$builddir/make.log" 2>&1 || { grep -E 'error|Error|warning' "$builddir/make.log" | head -n 40; return 1; }
        local fixture
        for fixture in echo hostile conformance; do
                if [ -e "$builddir/src/tests/rig/servers/mcp_$fixture.c" ]; then
                        limited 120 make "tests/rig/servers/mcp_$fixture" >>"$builddir/make.log" 2>&1 || { tail -n 5 "$builddir/make.log"; return 1; }
                fi
        done
}

# Counts what automake's harness reported; its .trs files are the record, one per program.
unit_tests() {
        local trs name result
        cd "$builddir/build" || return 1
        find . -name '*.trs' -delete
        limited 1500 make -k -j"${MAKE_JOBS:-$(nproc)}" check >"$builddir/check.log" 2>&1
        local rc=$? seen=0 bad=0
        while read -r trs; do
                name=${trs#./}
                name=${name%.trs}
                result=$(sed -n 's/^:global-test-result: //p' "$trs")
                seen=$((seen + 1))
                case "$result" in
                PASS) pass "$name" ;;
                SKIP) skip "$name" "$(tail -n 1 "${trs%.trs}.log" | cut -c1-200)" ;;
                *)
                        bad=1
                        flunk "$name"
                        tail -n 30 "${trs%.trs}.log"
                        ;;
                esac
        done < <(find . -name '*.trs' | sort)
        if [ "$seen" -eq 0 ] || { [ "$rc" -ne 0 ] && [ "$bad" -eq 0 ]; }; then
                flunk "make check"
                grep -E 'error|Error|\*\*\*' "$builddir/check.log" | head -n 20
        fi
}

why_no_rig() {
        [ "$(id -u)" -eq 0 ] || { echo "needs root"; return; }
        [ -e /proc/self/ns/net ] && unshare --net true 2>/dev/null || { echo "this machine allows no network namespaces"; return; }
        local p
        for p in dockerd docker-registry nft iptables ip dnsmasq debootstrap npm python3 busybox ssh-keygen setpriv curl; do
                command -v "$p" >/dev/null || { echo "$p is not installed"; return; }
        done
}

# The programs as they would be installed, in a folder that only root may write and the rig's users may read.
install_tree() {
        limited 120 make -C "$builddir/build" install DESTDIR="$RIG_DATA/root" >"$builddir/install.log" 2>&1 || { tail -n 20 "$builddir/install.log"; return 1; }
}

integration_tests() {
        local results=$builddir/integration.json python=/usr/bin/python3
        [ -x "$python" ] || python=python3
        rm -f "$results"
        limited "${INTEGRATION_LIMIT:-2400}" env BULKHEAD_ROOT="$RIG_DATA/root" BULKHEAD_BUILD="$builddir/build" "$python" -B "$here/integration/run.py" \
                --results "$results" ${pattern:+--pattern "$pattern"}
        local rc=$?
        if [ -s "$results" ]; then
                read -r p f s < <("$python" -c 'import json,sys; r=json.load(open(sys.argv[1])); print(r["passed"], r["failed"], r["skipped"])' "$results")
                passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
                [ "$rc" -eq 0 ] || [ "$f" -gt 0 ] || flunk "integration tests (ended with $rc)"
        else
                flunk "integration tests (ended with $rc, without a result)"
        fi
}

# The rig comes up while the tree is being built: neither waits for the other.
rig_start() {
        rig_made=yes
        "${fragile[@]}" timeout -k 60 1200 "$rig" up --owner $$ >"$builddir/rig.log" 2>&1 </dev/null &
        rig_job=$!
}

rig_ready() {
        local rc
        wait "$rig_job"
        rc=$?
        rig_job=''
        [ "$rc" -eq 0 ] && limited 120 "$rig" fixtures "$builddir/build" >>"$builddir/rig.log" 2>&1 && return 0
        tail -n 40 "$builddir/rig.log"
        return 1
}

[ "$(id -u)" -ne 0 ] || "$rig" stale
remove_stale_builds
if [ -z "$builddir" ]; then
        mkdir -p -m 755 "$builds" && [ -O "$builds" ] || { echo "cannot use $builds" >&2; exit 1; }
        own_builddir=$builds/$$-$(started_at $$)
        builddir=$own_builddir
        [ -z "$keep" ] || { mkdir -p "$builddir" && : >"$builddir/keep"; }
fi
mkdir -p "$builddir" && builddir=$(readlink -f "$builddir") || exit 1

progress "packages"
if ! limited 1800 "$here/rig/packages.sh" build run test; then
        [ "$(id -u)" -ne 0 ] || flunk "packages"
fi
no_rig=not-asked
if [ -n "$integration" ]; then
        no_rig=$(why_no_rig)
        if [ -z "$no_rig" ]; then
                progress "rig $RIG_NAME starts"
                rig_start
        fi
fi
progress "build in $builddir"
if build; then
        pass "build"
        if [ -n "$unit" ]; then
                progress "unit tests and fuzz corpora"
                unit_tests
        fi
        if [ -n "$integration" ]; then
                if [ -n "$no_rig" ]; then
                        skip "integration tests" "$no_rig"
                elif ! rig_ready; then
                        flunk "rig"
                else
                        progress "rig is up"
                        if ! install_tree; then
                                flunk "make install"
                        else
                                progress "integration tests"
                                integration_tests
                        fi
                fi
        fi
else
        flunk "build"
fi
trap - EXIT
finish
progress "done"
summary="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || summary="$summary, $skipped skipped"
printf '%s\n' "$summary"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
