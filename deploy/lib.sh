# What the scripts of deploy/ share: messages, the ledger of what was made here, and how to look for things. Sourced, not run.
# shellcheck shell=sh

# The service user must be able to read what is made here, whatever the caller's mask; and DOCKER_HOST below says which Engine.
umask 022
unset DOCKER_CONTEXT DOCKER_TLS_VERIFY

here=$(cd "$(dirname "$0")" && pwd -P)
top=$(cd "$here/.." && pwd -P)

# Downloads and build products; safe to delete.
work=${BULKHEAD_WORK:-/var/cache/bulkhead-quickstart}
# What quickstart made, so that teardown removes that and nothing else.
ledger=/var/lib/bulkhead-quickstart/ledger
pids=/run/bulkhead-quickstart
registry=127.0.0.1:5000
example=$registry/mcp/everything:$(sed -n 's/.*server-everything": "\(.*\)".*/\1/p' "$here/examples/everything/package.json")

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
        bold=$(printf '\033[1m') dim=$(printf '\033[2m') red=$(printf '\033[31m') plain=$(printf '\033[0m')
else
        bold='' dim='' red='' plain=''
fi

step() { printf '%s==> %s%s\n' "$bold" "$*" "$plain"; }
say() { printf '    %s\n' "$*"; }
# die WHAT WHAT-TO-DO
die() {
        printf '%s%s: %s%s\n' "$red" "${0##*/}" "$1" "$plain" >&2
        [ -z "${2:-}" ] || printf '    %s\n' "$2" >&2
        exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }
have_systemd() { [ -d /run/systemd/system ]; }

# run WHAT-TO-DO COMMAND…: quiet when it works, its output when it does not.
run() {
        remedy=$1
        shift
        mkdir -p "$work"
        if ! "$@" >"$work/last.log" 2>&1; then
                tail -n 30 "$work/last.log" >&2
                die "failed: $*" "$remedy (all of its output: $work/last.log)"
        fi
}

# made KIND WHAT: remembers that this is ours to remove.
made() {
        mkdir -p "${ledger%/*}"
        grep -qxF "$1 $2" "$ledger" 2>/dev/null || echo "$1 $2" >>"$ledger"
}
is_made() { grep -qxF "$1 $2" "$ledger" 2>/dev/null; }
list_made() { sed -n "s|^$1 ||p" "$ledger" 2>/dev/null; }

# packages USE: names of packages.txt for that use, without those whose command is here already.
packages() {
        while read -r name uses unless; do
                case ",$uses," in *",$1,"*) ;; *) continue ;; esac
                [ -n "$unless" ] && have "$unless" && continue
                echo "$name"
        done <<-EOF
	$(grep -v '^#' "$here/packages.txt")
	EOF
}
missing_packages() {
        for name in $(packages "$1"); do
                dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'install ok installed' || echo "$name"
        done
}

# make_dir PATH: like mkdir -p, remembering each directory that was not there.
make_dir() {
        [ -d "$1" ] && return
        make_dir "${1%/*}"
        mkdir "$1"
        made newdir "$1"
}

# alive PIDFILE COMMAND: is the process of that file still the program it was? (Numbers are reused; a zombie does not count.)
alive() {
        [ -s "$1" ] && awk -v name="$2" '$1 == "Name:" && $2 != name || $1 == "State:" && $2 == "Z" { bad = 1 } END { exit bad || !NR }' \
                "/proc/$(cat "$1")/status" 2>/dev/null
}
# wait_for SECONDS COMMAND…
wait_for() {
        tries=$(($1 * 5))
        shift
        while ! "$@" >/dev/null 2>&1; do
                tries=$((tries - 1))
                [ "$tries" -gt 0 ] || return 1
                sleep 0.2
        done
}

compose() {
        # Compose takes the user by number: the image's own names are not the host's.
        BULKHEAD_BROKER=$(id -u bulkhead-broker 2>/dev/null || echo 65534):$(id -g bulkhead-broker 2>/dev/null || echo 65534)
        export BULKHEAD_BROKER
        if have docker-compose; then
                docker-compose -p bulkhead -f "$top/compose/docker-compose.yml" "$@"
        else
                docker compose -p bulkhead -f "$top/compose/docker-compose.yml" "$@"
        fi
}
