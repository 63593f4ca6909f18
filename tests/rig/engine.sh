# A real Engine and a real registry in the host namespace, and the system users a controller runs as.
# shellcheck shell=bash

engine_start() {
        # --cgroup-parent: everything the Engine runs can be found and ended again, even when dockerd itself was killed.
        daemon dockerd nsenter --net="/run/netns/$RIG_HOST_NS" dockerd --data-root "$RIG_DATA/docker" --exec-root "$RIG_RUN/exec" \
                --pidfile "$RIG_RUN/dockerd-own.pid" -H "unix://$RIG_ENGINE" --group docker --config-file "$RIG_RUN/daemon.json" \
                --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$RIG_CGROUP" --shutdown-timeout 2 --userland-proxy=false
}

engine_wait() { wait_for 60 "Engine on $RIG_ENGINE (see $RIG_RUN/dockerd.log)" curl -fs --max-time 2 --unix-socket "$RIG_ENGINE" http://engine/_ping; }

# As an operator's "systemctl stop docker": containers end too (there is no live-restore).
engine_stop() { stop_daemon dockerd 15; }

# As the kernel's OOM killer would: dockerd, and with it containerd, which asked to die with its parent. Containers and their shims go on.
engine_kill() {
        local pid started containerd
        read -r pid started <"$RIG_RUN/dockerd.pid"
        containerd=$(cat "$RIG_RUN/exec/containerd/containerd.pid" 2>/dev/null || true)
        if same_process "$pid" "$started"; then
                kill -KILL "$pid"
        fi
        rm -f "$RIG_RUN/dockerd.pid" "$RIG_RUN/dockerd-own.pid"
        # Where the machine's first process does not collect the dead, the next dockerd takes containerd for alive and waits for it in vain.
        if [ -n "$containerd" ]; then
                wait_for 5 "end of containerd" process_ended "$containerd"
                rm -f "$RIG_RUN/exec/containerd/containerd.pid"
        fi
}

process_ended() { [ -z "$(started_at "$1")" ]; }

registry_start() {
        mkdir -p "$RIG_DATA/registry"
        printf 'version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: "%s"}\n' \
                "$RIG_DATA/registry" "$RIG_REGISTRY" >"$RIG_RUN/registry.yml"
        daemon registry nsenter --net="/run/netns/$RIG_HOST_NS" docker-registry serve "$RIG_RUN/registry.yml"
}

registry_wait() { wait_for 20 "registry on $RIG_REGISTRY" in_host curl -fs --max-time 2 "http://$RIG_REGISTRY/v2/"; }

engine_up() {
        getent group docker >/dev/null || groupadd --system docker
        mkdir -p "$RIG_DATA/docker" "$RIG_RUN/docker"
        echo '{}' >"$RIG_RUN/daemon.json"
        echo '{}' >"$RIG_RUN/docker/config.json"
        engine_start
        registry_start
}

engine_down() {
        local i
        # Containers first: dockerd then has nothing to wait for.
        kill_cgroup
        stop_daemon dockerd 10
        stop_daemon registry 3
        # A dockerd that was killed leaves containerd and the containers' shims.
        kill_by_path "$RIG_RUN/exec"
        kill_cgroup
        for i in 1 2 3; do
                unmount_below "$RIG_RUN"
                unmount_below "$RIG_DATA"
        done
        remove_cgroup
}

users_up() {
        local user
        (
                flock 9
                getent group "$RIG_OPERATORS" >/dev/null || groupadd --system "$RIG_OPERATORS"
                for user in "$RIG_USER" "$RIG_BROKER" "$RIG_NOBODY"; do
                        getent passwd "$user" >/dev/null || useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user"
                done
        ) 9>"$RIG_BASE/users.lock"
}

# The users are shared by all rigs of the machine: the last one turns out the light.
users_down() {
        local user
        (
                flock 9
                if [ -n "$(find "$RIG_BASE" -mindepth 1 -maxdepth 1 -type d ! -name "$RIG_NAME" -print -quit)" ]; then
                        exit 0
                fi
                for user in "$RIG_USER" "$RIG_BROKER" "$RIG_NOBODY"; do
                        getent passwd "$user" >/dev/null && userdel "$user" 2>/dev/null
                        getent group "$user" >/dev/null && groupdel "$user" 2>/dev/null
                done
                getent group "$RIG_OPERATORS" >/dev/null && groupdel "$RIG_OPERATORS"
                exit 0
        ) 9>"$RIG_BASE/users.lock"
}
