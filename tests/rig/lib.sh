# Sourced by every part of the rig: where things are, how they are started, and how they are ended again.
#
# A rig has a name; everything it makes carries that name or lies in its two folders, so that taking it down never needs to guess:
#   /run/bulkhead-rig/NAME       sockets, process records, logs, instances
#   /var/lib/bulkhead-rig/NAME   Engine and registry data
# The cache of images lies outside of both and stays: /var/cache/bulkhead-rig.
# shellcheck shell=bash disable=SC2034
RIG_SRC=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
RIG_NAME=${RIG_NAME:-bh}
RIG_BASE=/run/bulkhead-rig
RIG_RUN=$RIG_BASE/$RIG_NAME
RIG_DATA=/var/lib/bulkhead-rig/$RIG_NAME
RIG_CACHE=${RIG_CACHE:-/var/cache/bulkhead-rig}
RIG_HOST_NS=$RIG_NAME-host
RIG_FAR_NS=$RIG_NAME-far
RIG_ENGINE=$RIG_RUN/engine.sock
RIG_CGROUP=bulkhead-rig-$RIG_NAME
RIG_REGISTRY=127.0.0.1:5000
# Users of the rig's own, so that a real installation's are neither used nor removed.
RIG_USER=bulkhead-rig
RIG_BROKER=bulkhead-rig-broker
RIG_OPERATORS=bulkhead-rig-ops
RIG_NOBODY=bulkhead-rig-other

say() { printf 'rig %s: %s\n' "$RIG_NAME" "$*"; }
fail() {
        printf 'rig %s: %s\n' "$RIG_NAME" "$*" >&2
        return 1
}

# A process id alone may be somebody else's by now; with its start time it cannot.
# One that ended and that nobody has waited for yet does not count: not every machine's first process is quick about it.
started_at() { awk '{ sub(/^.*\) /, ""); if ($1 != "Z") print $20 }' "/proc/$1/stat" 2>/dev/null; }
same_process() { [ -n "$2" ] && [ "$(started_at "$1")" = "$2" ]; }

# daemon NAME COMMAND...: in the background, in a session of its own, output to NAME.log, recorded for stop_daemon.
daemon() {
        local name=$1 pid
        shift
        setsid "$@" >>"$RIG_RUN/$name.log" 2>&1 </dev/null &
        pid=$!
        echo "$pid $(started_at "$pid")" >"$RIG_RUN/$name.pid"
        disown "$pid"
}

# stop_daemon NAME [SECONDS]: TERM, then KILL.
stop_daemon() {
        local name=$1 limit=${2:-10} pid started i
        [ -e "$RIG_RUN/$name.pid" ] || return 0
        read -r pid started <"$RIG_RUN/$name.pid" || true
        if [ -n "$pid" ] && same_process "$pid" "$started"; then
                kill -TERM "$pid" 2>/dev/null || true
                for ((i = 0; i < limit * 20; i++)); do
                        same_process "$pid" "$started" || break
                        sleep 0.05
                done
                if same_process "$pid" "$started"; then
                        kill -KILL "$pid" 2>/dev/null || true
                        sleep 0.1
                fi
        fi
        rm -f "$RIG_RUN/$name.pid"
}

daemon_runs() {
        local pid started
        [ -e "$RIG_RUN/$1.pid" ] || return 1
        read -r pid started <"$RIG_RUN/$1.pid" && same_process "$pid" "$started"
}

# wait_for SECONDS WHAT COMMAND...
wait_for() {
        local limit=$1 what=$2 i
        shift 2
        for ((i = 0; i < limit * 10; i++)); do
                if "$@" >/dev/null 2>&1; then
                        return 0
                fi
                sleep 0.1
        done
        fail "$what: not there after $limit s"
}

# Ends every process that has PATTERN (a path of this rig) in its command line or runs below its cgroup. Only paths that carry the rig's name come here.
kill_by_path() {
        local path=$1 proc
        for proc in /proc/[0-9]*; do
                if tr '\0' ' ' 2>/dev/null <"$proc/cmdline" | grep -qF -- "$path/"; then
                        [ "${proc#/proc/}" = $$ ] || kill -KILL "${proc#/proc/}" 2>/dev/null || true
                fi
        done
}

kill_cgroup() {
        local procs pid dir
        for dir in /sys/fs/cgroup/"$RIG_CGROUP" /sys/fs/cgroup/*/"$RIG_CGROUP"; do
                [ -d "$dir" ] || continue
                while read -r procs; do
                        while read -r pid; do
                                kill -KILL "$pid" 2>/dev/null || true
                        done <"$procs" 2>/dev/null || true
                done < <(find "$dir" -name cgroup.procs)
        done
}

remove_cgroup() {
        local dir i
        for dir in /sys/fs/cgroup/"$RIG_CGROUP" /sys/fs/cgroup/*/"$RIG_CGROUP"; do
                [ -d "$dir" ] || continue
                for i in 1 2 3 4 5; do
                        find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null || true
                        [ -d "$dir" ] || break
                        sleep 0.2
                done
        done
}

# Unmounts everything below a folder, innermost first.
unmount_below() {
        local where
        awk -v p="$1/" 'index($5, p) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r where; do
                umount -l -- "$where" 2>/dev/null || true
        done
}

in_host() { nsenter --net="/run/netns/$RIG_HOST_NS" "$@"; }
in_far() { nsenter --net="/run/netns/$RIG_FAR_NS" "$@"; }
# The classic builder: needs no plugin. Its notice that it is deprecated is noise here.
rig_docker() { DOCKER_CONFIG=$RIG_RUN/docker DOCKER_BUILDKIT=0 docker -H "unix://$RIG_ENGINE" "$@" 2> >(grep -v -e DEPRECATED: -e "BuildKit is currently" -e environment-variable -e "^$" >&2); }
