#include "controller/egress/nl.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "common/file.h"

int nl_open(int *ret_fd, struct err **err)
{
        _cleanup_fd_ int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
        const struct timeval second = {.tv_sec = 1};
        const struct sockaddr_nl any = {.nl_family = AF_NETLINK};

        if (fd < 0)
                return err_sys(err, errno, "cannot open a netlink socket");
        if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second)) < 0 ||
            bind(fd, (const struct sockaddr *)&any, sizeof(any)) < 0)
                return err_sys(err, errno, "cannot set up a netlink socket");
        *ret_fd = TAKE_FD(fd);
        return 0;
}

void nl_begin(struct buf *b, unsigned subsystem, unsigned command, unsigned flags, uint32_t sequence, uint8_t family)
{
        const struct nlmsghdr h = {.nlmsg_type = (uint16_t)(subsystem << 8 | command),
                                   .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags),
                                   .nlmsg_seq = sequence};
        const struct nfgenmsg g = {.nfgen_family = family, .version = NFNETLINK_V0};

        buf_add(b, &h, sizeof(h));
        buf_add(b, &g, sizeof(g));
}

void nl_put(struct buf *b, unsigned type, const void *data, size_t n)
{
        static const char zero[NLA_ALIGNTO];
        const struct nlattr a = {.nla_len = (uint16_t)(NL_ATTR_HEAD + n), .nla_type = (uint16_t)type};

        buf_add(b, &a, sizeof(a));
        buf_add(b, data, n);
        buf_add(b, zero, -n & (NLA_ALIGNTO - 1));
}

size_t nl_nest(struct buf *b, unsigned type)
{
        size_t at = b->len;
        const struct nlattr a = {.nla_type = (uint16_t)(type | NLA_F_NESTED)};

        buf_add(b, &a, sizeof(a));
        return at;
}

void nl_nest_end(struct buf *b, size_t at)
{
        uint16_t n = (uint16_t)(b->len - at);

        memcpy(b->data + at + offsetof(struct nlattr, nla_len), &n, sizeof(n));
}

int nl_send(int fd, struct buf *b, struct err **err)
{
        uint32_t n = (uint32_t)b->len;

        memcpy(b->data, &n, sizeof(n));
        if (send(fd, b->data, b->len, 0) != (ssize_t)b->len)
                return err_sys(err, errno, "cannot send to netfilter");
        return 0;
}

const struct nlattr *nl_attrs(const struct nlmsghdr *h, size_t *ret_left)
{
        size_t head = NLMSG_SPACE(sizeof(struct nfgenmsg));

        *ret_left = h->nlmsg_len > head ? h->nlmsg_len - head : 0;
        return *ret_left ? (const struct nlattr *)((const char *)h + head) : NULL;
}

const struct nlattr *nl_find(const struct nlattr *list, size_t left, unsigned type)
{
        while (list && left >= NL_ATTR_HEAD && list->nla_len >= NL_ATTR_HEAD && list->nla_len <= left) {
                size_t n = (list->nla_len + 3U) & ~3U;

                if ((list->nla_type & NLA_TYPE_MASK) == type)
                        return list;
                if (n >= left)
                        return NULL;
                left -= n;
                list = (const struct nlattr *)((const char *)list + n);
        }
        return NULL;
}

const struct nlattr *nl_next(const struct nlattr *a, const struct nlattr *list, size_t *left)
{
        size_t n = (size_t)((const char *)a - (const char *)list) + ((a->nla_len + 3U) & ~3U);

        *left = n < *left ? *left - n : 0;
        return *left ? (const struct nlattr *)((const char *)list + n) : NULL;
}

const struct nlattr *nl_inside(const struct nlattr *a, size_t *ret_left)
{
        *ret_left = a ? nl_len(a) : 0;
        return a ? nl_data(a) : NULL;
}

bool nl_is_string(const struct nlattr *a, const char *s)
{
        return a && nl_len(a) == strlen(s) + 1 && memcmp(nl_data(a), s, nl_len(a)) == 0;
}
