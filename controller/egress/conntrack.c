#include "controller/egress/conntrack.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "common/file.h"
#include "controller/egress/nl.h"

struct conntrack_job {
        sd_event *loop;
        sd_event_source *io;
        int dump;   /* the table is read here … */
        int remove; /* … and deletions go out here */
        uint32_t *addresses;
        size_t n_addresses;
        struct entry *entries;
        size_t n_entries;
        conntrack_done_fn done;
        void *user;
};

struct flow {
        uint32_t source, destination;
        uint16_t port;
        uint8_t protocol;
};

struct conntrack_job *conntrack_cancel(struct conntrack_job *j)
{
        if (!j)
                return NULL;
        sd_event_source_disable_unref(j->io);
        sd_event_unref(j->loop);
        fd_closep(&j->dump);
        fd_closep(&j->remove);
        free(j->addresses);
        free(j->entries);
        free(j);
        return NULL;
}
DEFINE_FREEP(struct conntrack_job *, conntrack_cancel)

static uint32_t address_of(const struct nlattr *list, size_t left, unsigned type)
{
        const struct nlattr *a = nl_find(list, left, type);
        uint32_t value = 0;

        if (a && nl_len(a) == sizeof(value))
                memcpy(&value, nl_data(a), sizeof(value));
        return ntohl(value);
}

static bool read_tuple(struct flow *ret, const struct nlattr *tuple)
{
        size_t all, n;
        const struct nlattr *list = nl_inside(tuple, &all);
        const struct nlattr *ip = nl_inside(nl_find(list, all, CTA_TUPLE_IP), &n);

        *ret = (struct flow){.source = address_of(ip, n, CTA_IP_V4_SRC), .destination = address_of(ip, n, CTA_IP_V4_DST)};
        const struct nlattr *proto = nl_inside(nl_find(list, all, CTA_TUPLE_PROTO), &n);
        const struct nlattr *number = nl_find(proto, n, CTA_PROTO_NUM), *port = nl_find(proto, n, CTA_PROTO_DST_PORT);
        if (!ip || !number || nl_len(number) != 1)
                return false;
        memcpy(&ret->protocol, nl_data(number), 1);
        if (port && nl_len(port) == sizeof(ret->port)) {
                memcpy(&ret->port, nl_data(port), sizeof(ret->port));
                ret->port = ntohs(ret->port);
        }
        return true;
}

static int address_cmp(const void *a, const void *b)
{
        uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

        return x < y ? -1 : x > y;
}

static bool has_address(const struct conntrack_job *j, uint32_t address)
{
        return j->n_addresses && bsearch(&address, j->addresses, j->n_addresses, sizeof(address), address_cmp);
}

static bool matches(const struct conntrack_job *j, const struct flow *flow, const struct flow *answer)
{
        /* The answer's source differs from the destination where somebody redirected the flow. */
        if (has_address(j, flow->source) || has_address(j, flow->destination) || has_address(j, answer->source))
                return true;
        for (size_t i = 0; i < j->n_entries; i++) {
                const struct entry *e = &j->entries[i];

                if (e->address == flow->source && e->protocol == flow->protocol && e->port == flow->port &&
                    (e->net ^ flow->destination) >> (32 - e->prefix) == 0)
                        return true;
        }
        return false;
}

/* No acknowledgement: an entry that ends by itself meanwhile is as good. */
static int delete_flow(struct conntrack_job *j, const struct nlattr *attrs, size_t left, struct err **err)
{
        static const unsigned keep[] = {CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE};
        _cleanup_buf_ struct buf b = {};

        nl_begin(&b, NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE, 0, 0, AF_INET);
        for (size_t i = 0; i < ELEMENTSOF(keep); i++) {
                const struct nlattr *a = nl_find(attrs, left, keep[i]);

                if (a)
                        nl_put(&b, a->nla_type, nl_data(a), nl_len(a));
        }
        return nl_send(j->remove, &b, err);
}

/* 1: the dump is complete. */
static int read_message(struct conntrack_job *j, const struct nlmsghdr *h, struct err **err)
{
        struct flow flow, answer;
        size_t left;

        if (h->nlmsg_type == NLMSG_DONE)
                return 1;
        if (h->nlmsg_type == NLMSG_ERROR) {
                int code;

                memcpy(&code, NLMSG_DATA(h), sizeof(code));
                return code ? err_sys(err, code, "cannot read the connection table") : 1;
        }
        const struct nlattr *attrs = nl_attrs(h, &left);
        if (!read_tuple(&flow, nl_find(attrs, left, CTA_TUPLE_ORIG)))
                return 0;
        if (!read_tuple(&answer, nl_find(attrs, left, CTA_TUPLE_REPLY)))
                answer = flow;
        return matches(j, &flow, &answer) ? delete_flow(j, attrs, left, err) : 0;
}

static int read_piece(struct conntrack_job *j, struct err **err)
{
        char data[32768] __attribute__((aligned(NLMSG_ALIGNTO)));
        ssize_t n = recv(j->dump, data, sizeof(data), MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n <= 0)
                return err_sys(err, n < 0 ? errno : EPIPE, "cannot read the connection table");
        size_t left = (size_t)n;
        for (const struct nlmsghdr *h = (const struct nlmsghdr *)data; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
                int r = read_message(j, h, err);
                if (r != 0)
                        return r;
        }
        return 0;
}

static int on_io(_unused_ sd_event_source *source, _unused_ int fd, _unused_ uint32_t events, void *user)
{
        struct conntrack_job *j = user;
        _cleanup_err_ struct err *err = NULL;
        int r = read_piece(j, &err);

        if (r == 0)
                return 0;
        sd_event_source_set_enabled(j->io, SD_EVENT_OFF);
        j->done(err, j->user);
        conntrack_cancel(j);
        return 0;
}

int conntrack_start(struct conntrack_job **ret, sd_event *loop, const uint32_t *addresses, size_t n_addresses, const struct entry *entries,
                    size_t n_entries, conntrack_done_fn done, void *user, struct err **err)
{
        _cleanup_(conntrack_cancelp) struct conntrack_job *j = NEW(struct conntrack_job);
        _cleanup_buf_ struct buf b = {};

        *j = (struct conntrack_job){.loop = sd_event_ref(loop), .dump = -1, .remove = -1, .done = done, .user = user};
        if (nl_open(&j->dump, err) < 0 || nl_open(&j->remove, err) < 0)
                return -1;
        j->addresses = mem_dup(addresses, n_addresses * sizeof(*addresses));
        j->n_addresses = n_addresses;
        j->entries = mem_dup(entries, n_entries * sizeof(*entries));
        j->n_entries = n_entries;
        nl_begin(&b, NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET, NLM_F_DUMP, 1, AF_INET);
        if (nl_send(j->dump, &b, err) < 0)
                return -1;
        int r = sd_event_add_io(loop, &j->io, j->dump, EPOLLIN, on_io, j);
        if (r < 0)
                return err_sys(err, r, "cannot watch the connection table");
        *ret = TAKE_PTR(j);
        return 0;
}
