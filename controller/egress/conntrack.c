#include "controller/egress/conntrack.h"

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <sys/socket.h>

#include "common/file.h"
#include "controller/egress/nl.h"
#include "controller/egress/nl_dump.h"

struct conntrack_job {
        struct nl_dump *dump;
        int remove; /* deletions go out here */
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
        nl_dump_cancel(j->dump);
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

static int on_message(const struct nlmsghdr *h, void *user, struct err **err)
{
        struct conntrack_job *j = user;
        struct flow flow, answer;
        size_t left;
        const struct nlattr *attrs = nl_attrs(h, &left);

        if (!read_tuple(&flow, nl_find(attrs, left, CTA_TUPLE_ORIG)))
                return 0;
        if (!read_tuple(&answer, nl_find(attrs, left, CTA_TUPLE_REPLY)))
                answer = flow;
        return matches(j, &flow, &answer) ? delete_flow(j, attrs, left, err) : 0;
}

static void on_done(_unused_ int error, struct err *err, void *user)
{
        struct conntrack_job *j = user;

        err_wrap(&err, "the connection table");
        j->dump = NULL;
        j->done(err, j->user);
        conntrack_cancel(j);
}

int conntrack_start(struct conntrack_job **ret, sd_event *loop, const uint32_t *addresses, size_t n_addresses, const struct entry *entries,
                    size_t n_entries, conntrack_done_fn done, void *user, struct err **err)
{
        _cleanup_(conntrack_cancelp) struct conntrack_job *j = NEW(struct conntrack_job);
        _cleanup_buf_ struct buf b = {};

        *j = (struct conntrack_job){.remove = -1, .done = done, .user = user};
        if (nl_open(&j->remove, err) < 0)
                return -1;
        j->addresses = mem_dup(addresses, n_addresses * sizeof(*addresses));
        j->n_addresses = n_addresses;
        j->entries = mem_dup(entries, n_entries * sizeof(*entries));
        j->n_entries = n_entries;
        nl_begin(&b, NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET, NLM_F_DUMP, 1, AF_INET);
        if (nl_dump_start(&j->dump, loop, &b, on_message, on_done, j, err) < 0)
                return -1;
        *ret = TAKE_PTR(j);
        return 0;
}
