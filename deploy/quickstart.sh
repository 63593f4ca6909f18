#!/bin/sh
# One command on a fresh Debian 12 machine, as root:  deploy/quickstart.sh [--yes]
#
# Installs what is missing, builds Bulkhead, starts an Engine and a loopback registry where none runs, brings controller and broker up
# with docker-compose, takes one real MCP server from npm through the whole gate (proposed, smoke-tested, approved by you, promoted, running), and
# calls one of its tools as an agent that may use this tool and no other.
# --yes answers the one question for you; what was approved without a human then expires in 24 hours.
#
# Run it again whenever you like: what is done stays as it is. deploy/teardown.sh undoes it.
set -eu
. "$(dirname "$0")/lib.sh"

yes=
fetch_only=
for argument; do
        case $argument in
        --yes) yes=1 ;;
        --fetch) fetch_only=1 ;; # only the downloads, for a machine that will be cut off; needs no Engine
        -h | --help)
                sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"
                exit 0
                ;;
        *) die "unknown argument '$argument'" "usage: deploy/quickstart.sh [--yes] [--fetch]" ;;
        esac
done
[ "$(id -u)" = 0 ] || die "this must run as root" "sudo deploy/quickstart.sh"
# shellcheck disable=SC1091
[ "$(. /etc/os-release && echo "${VERSION_CODENAME:-}")" = bookworm ] || die "this is not Debian 12" "Bulkhead's libraries are Debian 12's; see docs/HACKING.md to build elsewhere."

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH DOCKER_HOST=unix:///run/docker.sock
server=everything
# Beside allowed_signers, where doctor looks after it.
key=/etc/bulkhead/operator_key
conf=/etc/bulkhead/bulkhead.conf
# What a program shows to the gateway. Bulkhead itself has only its hash.
token=/etc/bulkhead/gateway.token
gateway=http://127.0.0.1:8080
# The first agent, and where agents call.
agent=demo
policy=/etc/bulkhead/security_policy.json
door=http://127.0.0.1:8000

install_packages() {
        step "Packages"
        names=$({ packages build; packages run; packages image; } | sort -u)
        missing=
        for package in $names; do
                dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
        done
        if [ -z "$missing" ]; then
                say "nothing is missing"
                return
        fi
        say "installing$missing"
        # The registry's own unit would listen on every address, without a password.
        case $missing in *docker-registry*)
                if have_systemd; then
                        systemctl mask -q docker-registry.service 2>/dev/null && made mask docker-registry.service
                fi ;;
        esac
        remedy="Check that this host reaches its Debian mirror: apt-get update"
        run "$remedy" apt-get update
        # shellcheck disable=SC2086
        run "$remedy" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
        for package in $missing; do made package "$package"; done
}

build() {
        step "Build"
        [ ! -e "$top/config.status" ] || die "$top is configured in place" "Run 'make distclean' there, then this again: the build here is out of tree."
        [ -x "$top/configure" ] || run "See the messages above" "$top/autogen.sh"
        # What another clone was built from there names that clone's files, which may be gone.
        grep -qsxF "abs_top_srcdir = $top" "$work/build/Makefile" || rm -rf "$work/build"
        mkdir -p "$work/build"
        [ -e "$work/build/Makefile" ] || (cd "$work/build" && run "See the messages above" "$top/configure" --prefix=/usr/local)
        rm -rf "$work/stage"
        # These two make what they install, and no test programs.
        run "See the messages above" make -C "$work/build" -j"$(nproc)" install-exec install-data DESTDIR="$work/stage"
        changed=0
        (cd "$work/stage" && find . -type f -o -type l) | sed 's|^\.||' | sort >"$work/installed"
        while read -r file; do
                cmp -s "$work/stage$file" "$file" && continue
                make_dir "${file%/*}"
                # Beside it and renamed: a program that runs is not written into.
                cp -a "$work/stage$file" "$file.new" && mv "$file.new" "$file"
                made file "$file"
                changed=$((changed + 1))
        done <"$work/installed"
        say "$(bulkhead --version 2>/dev/null || echo bulkhead), $changed files installed under /usr/local"
}

users() {
        step "Users and directories"
        for user in bulkhead bulkhead-broker bulkhead-registry; do getent passwd "$user" >/dev/null || made user "$user"; done
        getent group bulkhead-operators >/dev/null || made group bulkhead-operators
        for dir in /etc/bulkhead /var/lib/bulkhead /run/bulkhead; do [ -d "$dir" ] || made dir "$dir"; done
        run "See the messages above" systemd-sysusers /usr/local/lib/sysusers.d/bulkhead.conf
        run "See the messages above" systemd-tmpfiles --create /usr/local/lib/tmpfiles.d/bulkhead.conf
        say "service user bulkhead ($(id -u bulkhead)), operators' group bulkhead-operators"
}

# background NAME COMMAND…: without systemd, a process of our own with a pid file.
background() {
        name=$1
        shift
        mkdir -p "$pids"
        setsid "$@" </dev/null >"$work/$name.log" 2>&1 &
        echo $! >"$pids/$name.pid"
}

start_engine() {
        step "Docker Engine"
        if docker version >/dev/null 2>&1; then
                say "runs already: $(docker version -f '{{.Server.Version}}')"
                return
        fi
        if have_systemd; then
                run "See: journalctl -u docker" systemctl start docker.service
        else
                alive "$pids/dockerd.pid" dockerd || {
                        for table in filter nat mangle raw; do nft list table ip $table >/dev/null 2>&1 || made table "ip $table"; done
                        [ -e /var/lib/docker/image ] || made images /var/lib/docker
                        ip link show docker0 >/dev/null 2>&1 || made engine "$(iptables -S FORWARD | sed -n 's/^-P FORWARD //p') $(cat /proc/sys/net/ipv4/ip_forward)"
                        background dockerd dockerd
                }
        fi
        wait_for 60 docker version || {
                tail -n 5 "$work/dockerd.log" >&2 2>/dev/null || true
                die "the Docker Engine does not answer on /run/docker.sock" "Its log: journalctl -u docker, or without systemd $work/dockerd.log"
        }
        say "started: $(docker version -f '{{.Server.Version}}')"
}

registry_answers() { [ "$(curl -s -o /dev/null -w '%{http_code}' --noproxy '*' --max-time 2 "http://$registry/v2/")" = 200 ]; }
start_registry() {
        step "Local registry on $registry"
        if registry_answers; then
                say "runs already"
                return
        fi
        if ! [ -e /etc/bulkhead/local-registry.yml ]; then
                cat >/etc/bulkhead/local-registry.yml <<-EOF
		# Images built on this host get their digest here. Loopback only.
		version: 0.1
		log: {level: warn}
		storage: {filesystem: {rootdirectory: /var/lib/bulkhead/registry}}
		http: {addr: "$registry"}
		EOF
        fi
        if have_systemd; then
                run "See: journalctl -u bulkhead-registry" systemctl daemon-reload
                run "See: journalctl -u bulkhead-registry" systemctl enable --now bulkhead-registry.service
                made unit bulkhead-registry.service
        else
                alive "$pids/registry.pid" docker-registry || background registry \
                        setpriv --reuid bulkhead-registry --regid bulkhead-registry --clear-groups --no-new-privs \
                        docker-registry serve /etc/bulkhead/local-registry.yml
        fi
        wait_for 20 registry_answers ||
                die "no registry answers on $registry" "Something else on that port? ss -ltnp. Its log: journalctl -u bulkhead-registry, or $work/registry.log"
        say "started"
}

images() {
        step "Images"
        "$here/build-image.sh" everything
        "$here/build-image.sh" bulkhead
        run "Does the registry run? curl http://$registry/v2/" docker push "$example"
        image=$(docker image inspect -f '{{join .RepoDigests "\n"}}' "$example" | grep -m 1 "^$registry/mcp/everything@") ||
                die "the Engine knows no registry digest for $example" "Look at: docker image inspect $example"
        say "pinned as $image"
}

configure_host() {
        step "Configuration and your signing key"
        audience=$(sed -n 's/^audience: *//p' "$conf" 2>/dev/null || true)
        [ -n "$audience" ] || audience=$({ hostname -f 2>/dev/null || hostname; } | tr -cd 'A-Za-z0-9.-' | cut -c 1-64)
        [ -n "$audience" ] || audience=localhost
        principal=operator@$audience
        if [ -e "$conf" ]; then
                say "$conf is there and stays as it is"
        else
                cat >"$conf.new" <<-EOF
		# What root decides about this host; see bulkhead.conf(5).
		# Approvals are made for this name and count on no other host.
		audience: $audience
		images:
		  # Images come from here and from nowhere else.
		  registries: ["$registry"]
		EOF
                chmod 0644 "$conf.new" && mv "$conf.new" "$conf"
        fi
        if [ ! -e "$key" ]; then
                run "See the messages above" ssh-keygen -q -t ed25519 -N '' -C "$principal" -f "$key"
                made file "$key"
                made file "$key.pub"
                say "made $key: who has this file decides what runs here. Move it to your own machine when you can."
        fi
        if [ ! -e "$token" ] || [ ! -e "$token.sha256" ]; then
                (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$token.new")
                sha256sum "$token.new" | cut -d ' ' -f 1 >"$token.sha256"
                mv "$token.new" "$token"
                say "made $token: programs of this host show it to the gateway (Authorization: Bearer …)"
        fi
        signers=/etc/bulkhead/allowed_signers
        line="$principal namespaces=\"bulkhead-approval@v1\" $(cut -d ' ' -f 1,2 "$key.pub")"
        grep -qxF "$line" "$signers" 2>/dev/null || { echo "$line" >>"$signers"; chmod 0644 "$signers"; }
}

main() {
        install_packages
        if [ -n "$fetch_only" ]; then
                step "Downloads"
                "$here/build-image.sh" everything --fetch
                "$here/build-image.sh" bulkhead --fetch
                say "fetched into $work"
                return
        fi
        build
        users
        start_engine
        start_registry
        images
        configure_host
        stack_up
        gate
        agents
        call
        result
}

daemon_answers() { bulkhead status; }
gateway_answers() { curl -fs -o /dev/null --noproxy '*' --max-time 2 "$gateway/readyz"; }
stack_up() {
        step "Controller and broker"
        repository=/var/lib/bulkhead/approvals.git
        if [ ! -e "$repository" ] || [ ! -e /etc/bulkhead/registry/mcp.servers.json ]; then
                run "See the messages above" bulkhead init
        fi
        # Once and never silently again: a controller that lost its memory must refuse, not trust what it is shown.
        if ! is_made state /var/lib/bulkhead/state; then
                run "If the state was lost, see \"Durable state\" in docs/controller.md" as_service bulkhead-controller --init-state
                made state /var/lib/bulkhead/state
        fi
        if have_systemd; then
                run "See: journalctl -u bulkhead-guard" systemctl daemon-reload
                run "See: journalctl -u bulkhead-guard" systemctl enable --now bulkhead-guard.service
                made unit bulkhead-guard.service
        fi
        if have_systemd && systemctl is-active -q bulkhead-controller.service; then
                say "runs as bulkhead-controller.service, and so not in a container"
                run "See: journalctl -u bulkhead-broker" systemctl enable --now bulkhead-broker.service
                made unit bulkhead-broker.service
                return
        fi
        run "See the messages above" compose up -d --no-build --remove-orphans
        wait_for 60 daemon_answers || {
                docker logs --tail 20 bulkhead-controller >&2 || true
                die "the controller does not answer on its control socket" "Its log: docker logs bulkhead-controller"
        }
        wait_for 60 gateway_answers || {
                docker logs --tail 20 bulkhead-broker >&2 || true
                die "the gateway does not answer on $gateway" "Its log: docker logs bulkhead-broker"
        }
        say "run in containers bulkhead-controller and bulkhead-broker; the gateway listens on $gateway"
}
as_service() { setpriv --reuid bulkhead --regid bulkhead --init-groups --no-new-privs "$@"; }

# Is exactly this image running under a valid approval?
is_running() {
        bulkhead --json status "$server" 2>/dev/null | tr -d ' \n' >"$work/status.json" || return 1
        grep -q '"state":"running"' "$work/status.json" && grep -qF "${image#*@}" "$work/status.json"
}
gate() {
        step "The gate: propose, smoke-test, approve, promote"
        # After a restart it may just be coming up.
        if grep -qF "$image" /etc/bulkhead/registry/mcp.servers.json && wait_for 20 is_running; then
                say "$server is approved and runs"
                return
        fi
        sed "s|@IMAGE@|$image|" "$here/examples/everything/entry.json.in" >"$work/entry.json.new"
        # A proposal that an earlier run left undecided is taken up again.
        id=$(cat "$work/proposal" 2>/dev/null || true)
        if [ -n "$id" ] && cmp -s "$work/entry.json" "$work/entry.json.new" && bulkhead pending | grep -q "^$id .* pass "; then
                say "$id was proposed and tested before"
        else
                mv "$work/entry.json.new" "$work/entry.json"
                id=$(bulkhead propose "$server" --entry "$work/entry.json" --by quickstart --reason "first server of this host" 2>"$work/last.log") || {
                        cat "$work/last.log" >&2
                        die "the proposal was refused" "The registry entry is $work/entry.json, from $here/examples/everything/entry.json.in"
                }
                echo "$id" >"$work/proposal"
                say "proposed as $id; testing it in quarantine"
                bulkhead smoke "$id" || die "the smoke test of $id did not pass" "Again, with its reasons: bulkhead smoke $id"
        fi
        if [ -n "$yes" ]; then
                bulkhead approve "$id" --key "$key" --as "$principal" --expires 24h --yes >"$work/approved.txt"
                say "approved without asking (--yes), for 24 hours; what was signed: $work/approved.txt"
        else
                bulkhead approve "$id" --key "$key" --as "$principal" || die "not approved: nothing was started" "Run this again when you have made up your mind, or: bulkhead reject $id --key $key --reason TEXT"
        fi
        bulkhead promote "$id"
        wait_for 90 is_running || {
                bulkhead status "$server" >&2 || true
                die "$server does not run" "The line 'Why' above says what is missing; the controller's log: docker logs bulkhead-controller"
        }
}

# An agent with one tool, and a policy that says so. Its calls wait for no human, because the entry says what that tool does: "read".
agents() {
        step "An agent, and what it may do"
        if [ ! -e "$policy" ]; then
                cat >"$policy.new" <<-EOF
		{
		  "version": "1.0",
		  "rate_limits": [{"tools": ["*:*"], "max_calls": 120, "window_seconds": 60}],
		  "budgets": {"period": "day", "max_api_calls": 5000},
		  "agents": {"$agent": {"allow": ["$server:echo"]}}
		}
		EOF
                chmod 0644 "$policy.new" && mv "$policy.new" "$policy"
        fi
        bulkhead agent list | grep -q "^$agent " || run "See the messages above" bulkhead agent add "$agent"
        say "$agent may call $server:echo and nothing else ($policy)"
}

# The token is on no command line: others can read those.
call_tool() { BULKHEAD_TOKEN=$(bulkhead token "$agent" --ttl 5m) bulkhead call --tool "$server:$1" --json "$2" --url "$door"; }
answers() {
        call_tool echo '{"message":"hello from a sealed server"}' >"$work/call.txt" 2>"$work/last.log" && grep -q 'Echo: hello from a sealed server' "$work/call.txt"
}
call() {
        step "A call, as that agent"
        wait_for 30 answers || {
                cat "$work/call.txt" "$work/last.log" >&2 2>/dev/null || true
                die "$server:echo gave no answer through $door" "The broker's log: docker logs bulkhead-broker"
        }
        say "$server:echo -> $(cat "$work/call.txt")"
        say "$server:get-env -> $(call_tool get-env '{}' 2>&1 || true)"
}

result() {
        step "Result"
        bulkhead status
        bulkhead plan || die "there is more to do than expected" "Look at: bulkhead status"
        say ""
        say "Try it: docker kill \$(docker ps -qf label=io.bulkhead.server=$server), or nft delete table inet bulkhead; then bulkhead status."
        say "Agents call $door/mcp with a token of their own: bulkhead token $agent. Add more: bulkhead agent add NAME, then a line in $policy."
        say "Or by one command, as agents that may run nothing else do: bulkhead call (docs/openclaw.md)."
        say "Your own MCP clients reach it at $gateway/servers/$server/mcp with the token in $token, all servers together at $gateway/mcp."
        say "Undo all of it: deploy/teardown.sh"
}

main
