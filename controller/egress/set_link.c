#include "controller/egress/set_link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/ipset/ip_set.h>
#include <linux/netfilter/nf_tables.h>
#include <sys/socket.h>

#include "common/file.h"
#include "controller/egress/nl.h"

struct set_link {
        int fd;
        uint32_t sequence;
};

int set_link_new(struct set_link **ret, struct err **err)
{
        _cleanup_(set_link_freep) struct set_link *l = NEW(struct set_link);

        l->fd = -1;
        if (nl_open(&l->fd, err) < 0)
                return -1;
        *ret = TAKE_PTR(l);
        return 0;
}

struct set_link *set_link_free(struct set_link *l)
{
        if (!l)
                return NULL;
        fd_closep(&l->fd);
        free(l);
        return NULL;
}

static void begin(struct set_link *l, struct buf *b, unsigned command, unsigned flags)
{
        const uint8_t protocol = IPSET_PROTOCOL_MIN;

        nl_begin(b, NFNL_SUBSYS_IPSET, command, flags, ++l->sequence, AF_INET);
        nl_put(b, IPSET_ATTR_PROTOCOL, &protocol, sizeof(protocol));
        nl_put(b, IPSET_ATTR_SETNAME, POLICY_SET, sizeof(POLICY_SET));
}

/* Receives until the answer to our request is complete. Returns its error number (0 or positive); data messages go to on_data. */
static int finish(struct set_link *l, int *ret_errno, size_t *count, struct err **err)
{
        char data[16384] __attribute__((aligned(NLMSG_ALIGNTO)));

        for (;;) {
                ssize_t n = recv(l->fd, data, sizeof(data), 0);
                size_t left = n > 0 ? (size_t)n : 0;

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_sys(err, errno, "no answer from the kernel about a set");
                for (struct nlmsghdr *h = (struct nlmsghdr *)data; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
                        if (h->nlmsg_seq != l->sequence)
                                continue;
                        if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR) {
                                int code;

                                memcpy(&code, NLMSG_DATA(h), sizeof(code));
                                *ret_errno = h->nlmsg_type == NLMSG_ERROR ? -code : 0;
                                return 0;
                        }
                        size_t all, inner;
                        const struct nlattr *attrs = nl_attrs(h, &all);
                        const struct nlattr *inside = nl_inside(nl_find(attrs, all, IPSET_ATTR_DATA), &inner);
                        const struct nlattr *elements = nl_find(inside, inner, IPSET_ATTR_ELEMENTS);
                        uint32_t number;

                        if (count && elements && nl_len(elements) == sizeof(number)) {
                                memcpy(&number, nl_data(elements), sizeof(number));
                                *count = ntohl(number);
                        }
                }
        }
}

int set_link_count(struct set_link *l, size_t *ret, struct err **err)
{
        _cleanup_buf_ struct buf b = {};
        const uint32_t flags = htonl(IPSET_FLAG_LIST_HEADER);
        size_t count = SIZE_MAX;
        int code;

        begin(l, &b, IPSET_CMD_LIST, NLM_F_DUMP | NLM_F_ACK);
        nl_put(&b, IPSET_ATTR_FLAGS | NLA_F_NET_BYTEORDER, &flags, sizeof(flags));
        if (nl_send(l->fd, &b, err) < 0 || finish(l, &code, &count, err) < 0)
                return -1;
        if (code == ENOENT || (!code && count == SIZE_MAX))
                return err_set(err, ERR_NOT_FOUND, "the set " POLICY_SET " does not exist");
        if (code)
                return err_sys(err, code, "cannot look at the set " POLICY_SET);
        *ret = count;
        return 0;
}

static void put_address(struct buf *b, unsigned type, uint32_t address)
{
        const uint32_t value = htonl(address);
        size_t at = nl_nest(b, type);

        nl_put(b, IPSET_ATTR_IPADDR_IPV4 | NLA_F_NET_BYTEORDER, &value, sizeof(value));
        nl_nest_end(b, at);
}

int set_link_test(struct set_link *l, const struct entry *entry, struct err **err)
{
        _cleanup_buf_ struct buf b = {};
        const uint16_t port = htons(entry->port);
        int code;

        begin(l, &b, IPSET_CMD_TEST, NLM_F_ACK);
        size_t at = nl_nest(&b, IPSET_ATTR_DATA);
        put_address(&b, IPSET_ATTR_IP, entry->address);
        nl_put(&b, IPSET_ATTR_PORT | NLA_F_NET_BYTEORDER, &port, sizeof(port));
        nl_put(&b, IPSET_ATTR_PROTO, &entry->protocol, sizeof(entry->protocol));
        put_address(&b, IPSET_ATTR_IP2, entry->net);
        nl_put(&b, IPSET_ATTR_CIDR2, &entry->prefix, sizeof(entry->prefix));
        nl_nest_end(&b, at);
        if (nl_send(l->fd, &b, err) < 0 || finish(l, &code, NULL, err) < 0)
                return -1;
        if (code == IPSET_ERR_EXIST)
                return 0;
        if (code)
                return err_set(err, ERR_SYSTEM, "cannot test an entry of the set " POLICY_SET ": the kernel says %d", code);
        return 1;
}

/* A key of several fields: each begins at a multiple of four bytes. */
static size_t element_key(char key[24], const struct element *element)
{
        const uint32_t address = htonl(element->address);
        const uint16_t port = htons(element->port);

        size_t n = 0;

        memset(key, 0, 24);
        if (element->set != SET_EXTERNAL) {
                memcpy(key, element->bridge, sizeof(element->bridge));
                n = sizeof(element->bridge);
        }
        memcpy(key + n, &address, sizeof(address));
        memcpy(key + n + 4, &port, sizeof(port));
        return n + (guard_set_has_port(element->set) ? 8 : 4);
}

int set_link_test_element(struct set_link *l, const struct element *element, struct err **err)
{
        _cleanup_buf_ struct buf b = {};
        const char *set = guard_set_names[element->set];
        char key[24];
        size_t n = element_key(key, element);
        int code;

        nl_begin(&b, NFNL_SUBSYS_NFTABLES, NFT_MSG_GETSETELEM, NLM_F_ACK, ++l->sequence, NFPROTO_INET);
        nl_put(&b, NFTA_SET_ELEM_LIST_TABLE, GUARD_TABLE, sizeof(GUARD_TABLE));
        nl_put(&b, NFTA_SET_ELEM_LIST_SET, set, strlen(set) + 1);
        size_t list = nl_nest(&b, NFTA_SET_ELEM_LIST_ELEMENTS), elem = nl_nest(&b, NFTA_LIST_ELEM), value = nl_nest(&b, NFTA_SET_ELEM_KEY);
        nl_put(&b, NFTA_DATA_VALUE, key, n);
        nl_nest_end(&b, value);
        nl_nest_end(&b, elem);
        nl_nest_end(&b, list);
        if (nl_send(l->fd, &b, err) < 0 || finish(l, &code, NULL, err) < 0)
                return -1;
        if (code == ENOENT)
                return 0;
        if (code)
                return err_sys(err, code, "cannot test an element of the guard's set %s", set);
        return 1;
}
