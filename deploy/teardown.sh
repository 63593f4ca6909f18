#!/bin/sh
# Undoes deploy/quickstart.sh:  deploy/teardown.sh [--yes]
# Removes what quickstart made, which it wrote down in /var/lib/bulkhead-quickstart/ledger, and nothing that was there before.
set -eu
. "$(dirname "$0")/lib.sh"

case ${1:-} in -h | --help)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"
        exit 0
        ;;
esac
[ "$(id -u)" = 0 ] || die "this must run as root" "sudo deploy/teardown.sh"
case ${1:-} in '' | --yes) ;; *) die "unknown argument '$1'" "usage: deploy/teardown.sh [--yes]" ;; esac
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH DOCKER_HOST=unix:///run/docker.sock

if [ ! -e "$ledger" ]; then
        say "nothing to undo: quickstart has not run on this host ($ledger is missing)"
        exit 0
fi
if [ "${1:-}" != --yes ]; then
        say "This stops every server of Bulkhead on this host and deletes its configuration, its approvals and your signing key."
        printf '    Go on? [y/N] '
        read -r answer || answer=
        case $answer in y | Y | yes) ;; *) die "nothing was changed" ;; esac
fi

audience=$(sed -n 's/^audience: *//p' /etc/bulkhead/bulkhead.conf 2>/dev/null || true)

remove_containers() {
        step "Containers and networks"
        docker version >/dev/null 2>&1 || {
                say "no Engine answers: none to remove"
                return
        }
        # The controller first, or it would put them back; whoever runs it as a service has quickstart's programs.
        if have_systemd; then systemctl disable -q --now bulkhead-broker.service bulkhead-controller.service 2>/dev/null || true; fi
        compose down >/dev/null 2>&1 || docker rm -f bulkhead-broker bulkhead-controller >/dev/null 2>&1 || true
        [ -n "$audience" ] || return 0
        for id in $(docker ps -aq --filter "label=io.bulkhead.owner=$audience"); do docker rm -f "$id" >/dev/null || say "container $id stays: see above"; done
        for id in $(docker network ls -q --filter "label=io.bulkhead.owner=$audience"); do docker network rm "$id" >/dev/null || say "network $id stays: see above"; done
}

# remove_chains PROGRAM PREFIX [DEVICE]: first every rule that jumps to such a chain (or names the device), then the chains.
remove_chains() {
        for table in filter mangle raw nat; do
                rules=$("$1" -w -t "$table" -S 2>/dev/null) || continue
                echo "$rules" | grep '^-A' | grep -E -e " -[jg] $2" ${3:+-e " -[io] $3 "} | while read -r rule; do
                        # As xargs reads it: a comment in quotes stays one word.
                        echo "${rule#-A }" | xargs "$1" -w -t "$table" -D
                done
                for what in -F -X; do
                        for chain in $(echo "$rules" | sed -n "s/^-N \($2.*\)\$/\1/p"); do "$1" -w -t "$table" "$what" "$chain"; done
                done
        done
}
remove_rules() {
        step "Rules in the kernel"
        have iptables && remove_chains iptables BULKHEAD
        have ip6tables && remove_chains ip6tables BULKHEAD
        for set in $(ipset list -n 2>/dev/null | grep -iE '^(bulkhead|bh)-' || true); do ipset destroy "$set"; done
        # The deny layer goes last.
        if nft list table inet bulkhead >/dev/null 2>&1; then nft delete table inet bulkhead; fi
        # An Engine that quickstart started on a host that had none leaves its bridge and rules behind when it is stopped.
        before=$(list_made engine)
        if [ -n "$before" ]; then
                remove_chains iptables DOCKER docker0
                iptables -w -P FORWARD "${before% *}"
                echo "${before#* }" >/proc/sys/net/ipv4/ip_forward
                ip link del docker0 2>/dev/null || true
        fi
        list_made table | while read -r table; do
                # Whatever somebody else has put in since stays, and so does a policy that denies.
                # shellcheck disable=SC2086
                if rules=$(nft list table $table 2>/dev/null) &&
                        ! printf '%s\n' "$rules" | grep -qvE '^[[:space:]]*(#.*|table .*|chain .*\{|type .* policy accept;|\}|)$'; then
                        nft delete table $table
                fi
        done
}

remove_images() {
        step "Images"
        docker version >/dev/null 2>&1 || return 0
        for image in $(list_made image); do docker image rm -f "$image" >/dev/null 2>&1 || true; done
        for digest in $(docker image ls -q --no-trunc "$registry/mcp/everything" 2>/dev/null); do docker image rm -f "$digest" >/dev/null 2>&1 || true; done
}

ended() { ! alive "$pids/$1.pid" "$2"; }
stop() {
        if alive "$pids/$1.pid" "$2"; then
                pid=$(cat "$pids/$1.pid")
                kill "$pid"
                wait_for 30 ended "$1" "$2" || kill -9 "$pid"
                say "stopped $2"
        fi
        rm -f "$pids/$1.pid"
}
stop_services() {
        step "Services"
        for unit in $(list_made unit); do
                systemctl disable -q --now "$unit" 2>/dev/null || true
        done
        for unit in $(list_made mask); do systemctl unmask -q "$unit" || true; done
        stop registry docker-registry
        stop dockerd dockerd
}

remove_files() {
        step "Files, users"
        list_made file | while read -r file; do rm -f "$file"; done
        list_made newdir | sort -r | while read -r dir; do [ ! -d "$dir" ] || rmdir --ignore-fail-on-non-empty "$dir"; done
        for dir in $(list_made dir); do
                case $dir in /etc/bulkhead | /var/lib/bulkhead | /run/bulkhead) rm -rf "$dir" ;; esac
        done
        if have_systemd; then systemctl daemon-reload; fi
        for user in $(list_made user); do
                getent passwd "$user" >/dev/null || continue
                why=$(userdel "$user" 2>&1) || say "user $user stays: $why. To remove it later: userdel $user"
        done
        for group in $(list_made group); do
                getent group "$group" >/dev/null || continue
                why=$(groupdel "$group" 2>&1) || say "group $group stays: $why. To remove it later: groupdel $group"
        done
        packages=$(list_made package | tr '\n' ' ')
        images=$(list_made images)
        rm -rf "$work" "$pids" "${ledger%/*}"
        if [ -n "$images" ] && [ -d "$images" ]; then
                say "the Engine's own data stay in $images ($(du -sh "$images" | cut -f1)): your images may be among them. To remove them too:"
                say "rm -rf $images"
        fi
        if [ -n "$packages" ]; then
                say "packages stay installed. To remove the ones that quickstart brought:"
                say "apt-get remove $packages"
        fi
}

remove_containers
remove_images
stop_services
remove_rules
remove_files
step "Done"
