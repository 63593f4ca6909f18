# The small internet: a "host" namespace (Engine, registry, controller) whose only way out leads into a "far" namespace, where documentation
# addresses, a DNS server, listeners and counters are. Nothing of it touches the machine's own network.
# shellcheck shell=bash
RIG_FAR_V4="192.0.2.10 192.0.2.11 192.0.2.20 198.51.100.10 198.51.100.53 169.254.169.254 100.100.100.200 168.63.129.16"
RIG_FAR_V6="2001:db8:2::10 2001:db8:2::11 fd00:ec2::254 64:ff9b::c000:20a 2002:c000:20a::1"

net_up() {
        local a
        ip netns add "$RIG_HOST_NS"
        ip netns add "$RIG_FAR_NS"
        ip -n "$RIG_HOST_NS" link set lo up
        ip -n "$RIG_FAR_NS" link set lo up
        ip link add up0 netns "$RIG_HOST_NS" type veth peer name up0 netns "$RIG_FAR_NS"
        # A second foot of the host, as a machine with a private network has one (an empty bridge: not every kernel has dummy devices).
        ip -n "$RIG_HOST_NS" link add lan0 type bridge
        ip -n "$RIG_HOST_NS" addr add 192.168.77.1/24 dev lan0
        ip -n "$RIG_HOST_NS" addr add 203.0.113.2/24 dev up0
        ip -n "$RIG_HOST_NS" addr add 2001:db8:113::2/64 dev up0 nodad
        ip -n "$RIG_HOST_NS" link set up0 up
        ip -n "$RIG_HOST_NS" link set lan0 up
        ip -n "$RIG_FAR_NS" addr add 203.0.113.1/24 dev up0
        ip -n "$RIG_FAR_NS" addr add 2001:db8:113::1/64 dev up0 nodad
        ip -n "$RIG_FAR_NS" link set up0 up
        for a in $RIG_FAR_V4; do
                ip -n "$RIG_FAR_NS" addr add "$a/32" dev lo
        done
        for a in $RIG_FAR_V6; do
                ip -n "$RIG_FAR_NS" addr add "$a/128" dev lo nodad
        done
        ip -n "$RIG_HOST_NS" route add default via 203.0.113.1
        ip -n "$RIG_HOST_NS" route add 169.254.169.254/32 via 203.0.113.1
        ip -n "$RIG_HOST_NS" -6 route add default via 2001:db8:113::1
        # A packet that leaks without address translation must get its answer too, or a leak would look like a refusal.
        ip -n "$RIG_FAR_NS" route add default via 203.0.113.2
        ip -n "$RIG_FAR_NS" -6 route add default via 2001:db8:113::2
        in_host sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv4.ip_forward=1
        net_counters
}

# What arrives from the host namespace is counted: all of it (neighbour discovery and multicast housekeeping aside), and by destination.
net_counters() {
        in_far nft -f - <<'NFT'
table inet farcount {
        counter arrived { }
        set seen4 { type ipv4_addr . inet_proto . inet_service; flags dynamic; size 65535; }
        set seen6 { type ipv6_addr . inet_proto . inet_service; flags dynamic; size 65535; }
        set other4 { type ipv4_addr . inet_proto; flags dynamic; size 65535; }
        set other6 { type ipv6_addr . inet_proto; flags dynamic; size 65535; }
        chain arrive {
                type filter hook prerouting priority raw - 10; policy accept;
                iifname != "up0" return
                icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-report, mld2-listener-report, mld-listener-query } return
                ip protocol igmp return
                counter name "arrived"
                ip version 4 meta l4proto { tcp, udp, sctp } update @seen4 { ip daddr . meta l4proto . th dport counter } return
                ip6 version 6 meta l4proto { tcp, udp, sctp } update @seen6 { ip6 daddr . meta l4proto . th dport counter } return
                ip version 4 update @other4 { ip daddr . meta l4proto counter } return
                ip6 version 6 update @other6 { ip6 daddr . meta l4proto counter } return
        }
}
NFT
}

net_down() {
        local ns
        for ns in "$RIG_HOST_NS" "$RIG_FAR_NS"; do
                if [ -e "/run/netns/$ns" ]; then
                        ip netns del "$ns" || umount -l "/run/netns/$ns"
                fi
        done
}

# DNS and listeners in the far namespace; a few listeners on the host itself, which no server may reach.
far_up() {
        daemon dnsmasq nsenter --net="/run/netns/$RIG_FAR_NS" dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --no-daemon \
                --bind-interfaces --listen-address=198.51.100.53 --user=root --pid-file= --cache-size=0 --log-queries=extra --log-facility=- \
                --address=/allowed.example.org/192.0.2.10 --address=/other.example.org/192.0.2.11 --address=/wild.example.org/192.0.2.20 \
                --address=/loop.example.org/127.0.0.1 --address=/private.example.org/10.213.0.1 \
                --txt-record=tunnel.example.org,payload
        daemon far nsenter --net="/run/netns/$RIG_FAR_NS" python3 "$RIG_SRC/sinks.py" --log "$RIG_RUN/far.jsonl" --ready "$RIG_RUN/far.ready" \
                --bind "203.0.113.1 $RIG_FAR_V4 $RIG_FAR_V6" --tcp 22,80,443,853,5432,8080 --udp 123,443,5000,5432
        daemon hostsinks nsenter --net="/run/netns/$RIG_HOST_NS" python3 "$RIG_SRC/sinks.py" --log "$RIG_RUN/host.jsonl" --ready "$RIG_RUN/host.ready" \
                --bind "203.0.113.2 192.168.77.1" --tcp 22,7001 --udp 7001
        wait_for 10 "listeners of the small internet" test -e "$RIG_RUN/far.ready"
        wait_for 10 "listeners of the host" test -e "$RIG_RUN/host.ready"
}

far_down() {
        stop_daemon far 2
        stop_daemon hostsinks 2
        stop_daemon dnsmasq 2
}
