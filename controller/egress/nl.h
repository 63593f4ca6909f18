/*
 * The little of netlink that three files here share: building a request, walking attributes, one request with one answer.
 * Used only inside controller/egress.
 */
#pragma once

#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/mem.h"

/* NLA_HDRLEN is this as an int. */
#define NL_ATTR_HEAD sizeof(struct nlattr)

/* Opens a netfilter netlink socket with close-on-exec and a receive timeout of one second. */
_must_check_ int nl_open(int *ret_fd, struct err **err);

/* Starts a message of a netfilter subsystem in b, which must be empty. */
void nl_begin(struct buf *b, unsigned subsystem, unsigned command, unsigned flags, uint32_t sequence, uint8_t family);
void nl_put(struct buf *b, unsigned type, const void *data, size_t n);
/* Returns the place to hand to nl_nest_end(). */
size_t nl_nest(struct buf *b, unsigned type);
void nl_nest_end(struct buf *b, size_t at);
/* Fills in the length and sends. */
_must_check_ int nl_send(int fd, struct buf *b, struct err **err);

/* First attribute of a netfilter message, and the number of bytes of all of them. NULL when there is none. */
const struct nlattr *nl_attrs(const struct nlmsghdr *h, size_t *ret_left);
/* Finds an attribute in a list of `left` bytes; NULL when absent or cut. */
const struct nlattr *nl_find(const struct nlattr *list, size_t left, unsigned type);
/* What follows `a` in its list; *left is that of the list and becomes that of the rest. */
const struct nlattr *nl_next(const struct nlattr *a, const struct nlattr *list, size_t *left);
/* The attributes inside an attribute. */
const struct nlattr *nl_inside(const struct nlattr *a, size_t *ret_left);
static inline const void *nl_data(const struct nlattr *a)
{
        return (const char *)a + NL_ATTR_HEAD;
}
static inline size_t nl_len(const struct nlattr *a)
{
        return (size_t)a->nla_len - NL_ATTR_HEAD;
}
/* Is it a NUL-terminated string equal to s? */
bool nl_is_string(const struct nlattr *a, const char *s);
