#include "controller/egress/watch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "common/file.h"
#include "common/log.h"
#include "controller/egress/egress_private.h"
#include "controller/egress/nl.h"

/* Whoever deletes a rule often puts it back at once (dockerd does); a guard that is gone is not waited for. */
#define DEBOUNCE_US 30000
#define POLL_US     400000

struct watch {
        struct egress *e;
        int fd;     /* notifications */
        int legacy; /* raw socket to ask iptables-legacy's tables; -1 when unused */
        sd_event_source *io, *debounce, *poll;
        /* Of the commit being read: */
        bool touched; /* it concerns us … */
        bool urgent;  /* … and changes the guard's rules */
        int jumps;    /* from FORWARD to DOCKER-USER, added less removed */
        /* Of those since the last look. dockerd takes its jump out and puts it back for every network it makes: then there is nothing to
         * look at. */
        bool look;
        int jumps_missing;
        unsigned own; /* commits of our own still to come */
        struct ipt_getinfo legacy_info;
        bool legacy_known;
};

static int on_debounce(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user)
{
        struct watch *w = user;
        bool look = w->look || w->jumps_missing > 0;

        w->look = false;
        w->jumps_missing = 0;
        if (look)
                egress_look(w->e, false);
        return 0;
}

static void alarm_in(struct watch *w, uint64_t usec)
{
        int on = SD_EVENT_OFF;

        if (!w->e->loaded)
                return;
        if (usec == 0) {
                egress_look(w->e, true);
                return;
        }
        /* Not pushed further by later changes: a busy host must not keep us from looking. */
        if (w->debounce && sd_event_source_get_enabled(w->debounce, &on) >= 0 && on != SD_EVENT_OFF)
                return;
        w->debounce = sd_event_source_disable_unref(w->debounce);
        int r = sd_event_add_time_relative(w->e->loop, &w->debounce, CLOCK_MONOTONIC, usec, 1000, on_debounce, w);
        if (r < 0)
                egress_look(w->e, false);
}

static bool names(const struct nlattr *attrs, size_t left, const char *chain)
{
        return attrs && memmem(attrs, left, chain, strlen(chain) + 1);
}

/* A rule of the filter table concerns us when it is in our chain, or a jump on the way to it. */
static void read_rule(struct watch *w, bool added, const struct nlattr *attrs, size_t left)
{
        const struct nlattr *chain = nl_find(attrs, left, NFTA_RULE_CHAIN);

        if (nl_is_string(chain, POLICY_CHAIN) || nl_is_string(chain, "DOCKER-USER"))
                w->touched = true;
        else if (!nl_is_string(chain, "FORWARD"))
                return;
        else if (names(attrs, left, "DOCKER-USER"))
                w->jumps += added ? 1 : -1;
        else if (!added && names(attrs, left, POLICY_CHAIN))
                w->touched = true;
}

static void read_chain(struct watch *w, const struct nlattr *chain)
{
        w->touched |= nl_is_string(chain, POLICY_CHAIN) || nl_is_string(chain, "DOCKER-USER") || nl_is_string(chain, "FORWARD");
}

/* The end of a commit. We cannot tell whose it was, only that one of several was ours. */
static void read_commit(struct watch *w)
{
        if (w->own && (w->touched || w->jumps)) {
                w->own--;
        } else if (w->touched || w->jumps) {
                w->look |= w->touched;
                w->jumps_missing = MAX(w->jumps_missing - w->jumps, 0);
                alarm_in(w, w->urgent ? 0 : DEBOUNCE_US);
        }
        w->touched = w->urgent = false;
        w->jumps = 0;
}

static void read_message(struct watch *w, const struct nlmsghdr *h)
{
        unsigned message = h->nlmsg_type & 0xff;
        const struct nfgenmsg *g = NLMSG_DATA(h);
        size_t left;

        if (h->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES || h->nlmsg_len < NLMSG_SPACE(sizeof(*g)))
                return;
        if (message == NFT_MSG_NEWGEN) {
                read_commit(w);
                return;
        }
        /* Tables, chains, rules, sets and elements all carry the table's name in attribute 1. */
        const struct nlattr *attrs = nl_attrs(h, &left), *table = nl_find(attrs, left, NFTA_TABLE_NAME);
        if (g->nfgen_family == NFPROTO_INET && (nl_is_string(table, GUARD_TABLE) || nl_is_string(table, REFERENCE_TABLE))) {
                w->touched = true;
                w->urgent |= nl_is_string(table, GUARD_TABLE) && message != NFT_MSG_NEWSETELEM && message != NFT_MSG_DELSETELEM;
        } else if (g->nfgen_family == NFPROTO_IPV4 && nl_is_string(table, "filter")) {
                if (message == NFT_MSG_NEWRULE || message == NFT_MSG_DELRULE)
                        read_rule(w, message == NFT_MSG_NEWRULE, attrs, left);
                else if (message == NFT_MSG_NEWCHAIN || message == NFT_MSG_DELCHAIN)
                        read_chain(w, nl_find(attrs, left, NFTA_CHAIN_NAME));
                else if (message == NFT_MSG_DELTABLE)
                        w->touched = true;
        }
}

static void drain(struct watch *w)
{
        char data[65536] __attribute__((aligned(NLMSG_ALIGNTO)));

        for (;;) {
                ssize_t n = recv(w->fd, data, sizeof(data), MSG_DONTWAIT);
                size_t left = n > 0 ? (size_t)n : 0;

                if (n < 0 && errno == EINTR)
                        continue;
                /* Notifications were lost: they may have been about us. */
                if (n < 0 && errno == ENOBUFS) {
                        w->look = true;
                        alarm_in(w, DEBOUNCE_US);
                        continue;
                }
                if (n <= 0)
                        return;
                for (const struct nlmsghdr *h = (const struct nlmsghdr *)data; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left))
                        read_message(w, h);
        }
}

static int on_io(_unused_ sd_event_source *source, _unused_ int fd, _unused_ uint32_t events, void *user)
{
        drain(user);
        return 0;
}

void watch_own_begin(struct watch *w)
{
        drain(w);
        w->own = 1;
}

void watch_own_end(struct watch *w)
{
        drain(w);
        w->own = 0;
}

/* iptables-legacy tells nobody. Its table's size and offsets change with any rule. */
static bool legacy_changed(struct watch *w)
{
        struct ipt_getinfo info = {.name = "filter"};
        socklen_t n = sizeof(info);

        if (w->e->backend != BACKEND_LEGACY)
                return false;
        if (w->legacy < 0)
                w->legacy = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
        if (w->legacy < 0 || getsockopt(w->legacy, IPPROTO_IP, IPT_SO_GET_INFO, &info, &n) < 0)
                return true;
        bool changed = w->legacy_known && memcmp(&info, &w->legacy_info, sizeof(info)) != 0;
        w->legacy_info = info;
        w->legacy_known = true;
        return changed;
}

static int on_poll(sd_event_source *source, _unused_ uint64_t now, void *user)
{
        struct watch *w = user;
        size_t count = 0;
        bool legacy = legacy_changed(w);

        if (w->e->loaded && w->e->sound && !w->e->round && w->e->known_valid &&
            (set_link_count(w->e->set_link, &count, NULL) < 0 || count != w->e->known.n_entries || legacy))
                egress_kick(w->e, true);
        sd_event_source_set_time_relative(source, POLL_US);
        return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

int watch_new(struct watch **ret, struct egress *e, struct err **err)
{
        _cleanup_(watch_freep) struct watch *w = NEW(struct watch);
        const int group = NFNLGRP_NFTABLES, size = 4 << 20;

        w->e = e;
        w->fd = w->legacy = -1;
        if (nl_open(&w->fd, err) < 0)
                return -1;
        /* A flush of a big rule set comes in one go. */
        (void)setsockopt(w->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
        if (setsockopt(w->fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
                return err_sys(err, errno, "cannot listen to the kernel's firewall notifications (CAP_NET_ADMIN is needed)");
        int r = sd_event_add_io(e->loop, &w->io, w->fd, EPOLLIN, on_io, w);
        if (r >= 0)
                r = sd_event_source_set_priority(w->io, SD_EVENT_PRIORITY_IMPORTANT);
        if (r >= 0)
                r = sd_event_add_time_relative(e->loop, &w->poll, CLOCK_MONOTONIC, POLL_US, 50000, on_poll, w);
        if (r < 0)
                return err_sys(err, r, "cannot watch the kernel's firewall notifications");
        *ret = TAKE_PTR(w);
        return 0;
}

struct watch *watch_free(struct watch *w)
{
        if (!w)
                return NULL;
        sd_event_source_disable_unref(w->io);
        sd_event_source_disable_unref(w->debounce);
        sd_event_source_disable_unref(w->poll);
        fd_closep(&w->fd);
        fd_closep(&w->legacy);
        free(w);
        return NULL;
}
