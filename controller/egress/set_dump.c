#include "controller/egress/set_dump.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/ipset/ip_set.h>
#include <sys/socket.h>

#include "controller/egress/nl.h"
#include "controller/egress/nl_dump.h"

struct set_dump {
        struct nl_dump *dump;
        struct set_state state;
        set_dump_done_fn done;
        void *user;
};

void set_state_deinit(struct set_state *s)
{
        rules_deinit(&s->rules);
}

static uint32_t get32(const struct nlattr *a)
{
        uint32_t value = 0;

        if (a && nl_len(a) == sizeof(value))
                memcpy(&value, nl_data(a), sizeof(value));
        return ntohl(value);
}

static unsigned get8(const struct nlattr *a)
{
        return a && nl_len(a) == 1 ? *(const uint8_t *)nl_data(a) : 0;
}

static bool get_address(uint32_t *ret, const struct nlattr *a)
{
        size_t n;
        const struct nlattr *list = nl_inside(a, &n), *ip = nl_find(list, n, IPSET_ATTR_IPADDR_IPV4);

        *ret = get32(ip);
        return ip && nl_len(ip) == sizeof(*ret);
}

/* Extensions (timeouts, counters, comments) and flags change what an entry means or how long it lasts. */
static bool form_right(const struct nlattr *attrs, size_t left, const struct nlattr *data)
{
        static const unsigned extensions[] = {IPSET_ATTR_TIMEOUT, IPSET_ATTR_CADT_FLAGS, IPSET_ATTR_NETMASK, IPSET_ATTR_MARKMASK};
        size_t n;
        const struct nlattr *list = nl_inside(data, &n);

        for (size_t i = 0; i < ELEMENTSOF(extensions); i++)
                if (nl_find(list, n, extensions[i]))
                        return false;
        return nl_is_string(nl_find(attrs, left, IPSET_ATTR_TYPENAME), "hash:ip,port,net") &&
               get8(nl_find(attrs, left, IPSET_ATTR_FAMILY)) == AF_INET && get32(nl_find(list, n, IPSET_ATTR_MAXELEM)) == POLICY_SET_MAX;
}

static bool read_entry(struct entry *ret, const struct nlattr *data)
{
        size_t n;
        const struct nlattr *list = nl_inside(data, &n), *port = nl_find(list, n, IPSET_ATTR_PORT);
        uint16_t number;

        if (nl_find(list, n, IPSET_ATTR_CADT_FLAGS) || nl_find(list, n, IPSET_ATTR_TIMEOUT) || !port || nl_len(port) != sizeof(number))
                return false;
        memcpy(&number, nl_data(port), sizeof(number));
        ret->port = ntohs(number);
        ret->protocol = (uint8_t)get8(nl_find(list, n, IPSET_ATTR_PROTO));
        ret->prefix = (uint8_t)get8(nl_find(list, n, IPSET_ATTR_CIDR2));
        return get_address(&ret->address, nl_find(list, n, IPSET_ATTR_IP)) && get_address(&ret->net, nl_find(list, n, IPSET_ATTR_IP2)) &&
               ret->port && (ret->protocol == IPPROTO_TCP || ret->protocol == IPPROTO_UDP) && ret->prefix >= 1 && ret->prefix <= 32;
}

void set_state_read(struct set_state *s, const struct nlmsghdr *h)
{
        size_t left, n;
        const struct nlattr *attrs = nl_attrs(h, &left), *data = nl_find(attrs, left, IPSET_ATTR_DATA);
        const struct nlattr *list = nl_inside(nl_find(attrs, left, IPSET_ATTR_ADT), &n);

        if (data) {
                s->exists = true;
                s->form_right = form_right(attrs, left, data);
        }
        /* One attribute of the same type per entry. */
        while ((data = nl_find(list, n, IPSET_ATTR_DATA))) {
                struct entry entry = {};

                if (read_entry(&entry, data))
                        rules_add_entry(&s->rules, entry);
                else
                        s->strange = true;
                list = nl_next(data, list, &n);
        }
}

struct set_dump *set_dump_cancel(struct set_dump *d)
{
        if (!d)
                return NULL;
        nl_dump_cancel(d->dump);
        set_state_deinit(&d->state);
        free(d);
        return NULL;
}

static int on_message(const struct nlmsghdr *h, void *user, _unused_ struct err **err)
{
        struct set_dump *d = user;

        set_state_read(&d->state, h);
        return 0;
}

static void on_done(int error, struct err *err, void *user)
{
        struct set_dump *d = user;

        d->dump = NULL;
        err_wrap(&err, "reading the set " POLICY_SET " back");
        rules_sort(&d->state.rules);
        d->done(&d->state, error == ENOENT ? NULL : err, d->user);
        set_dump_cancel(d);
}

int set_dump_start(struct set_dump **ret, sd_event *loop, set_dump_done_fn done, void *user, struct err **err)
{
        _cleanup_(set_dump_cancelp) struct set_dump *d = NEW(struct set_dump);
        _cleanup_buf_ struct buf b = {};
        const uint8_t protocol = IPSET_PROTOCOL_MIN;

        d->done = done;
        d->user = user;
        nl_begin(&b, NFNL_SUBSYS_IPSET, IPSET_CMD_LIST, NLM_F_DUMP | NLM_F_ACK, 1, AF_INET);
        nl_put(&b, IPSET_ATTR_PROTOCOL, &protocol, sizeof(protocol));
        nl_put(&b, IPSET_ATTR_SETNAME, POLICY_SET, sizeof(POLICY_SET));
        if (nl_dump_start(&d->dump, loop, &b, on_message, on_done, d, err) < 0)
                return -1;
        *ret = TAKE_PTR(d);
        return 0;
}
