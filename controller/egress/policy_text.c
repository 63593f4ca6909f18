#include "controller/egress/policy_text.h"

/* The number of rules does not depend on the number of servers. In the form iptables-save prints, so that a read-back compares as text. */
static void add_rules(struct buf *b, uint32_t mark)
{
        buf_addf(b,
                 "-A " POLICY_CHAIN " -i bh+ -m conntrack --ctdir ORIGINAL -m set --match-set " POLICY_SET
                 " src,dst,dst -j MARK --set-xmark 0x%x/0x%x\n",
                 mark, mark);
        /* An answer is judged by the question: the same entry, read backwards. */
        buf_addf(b,
                 "-A " POLICY_CHAIN " -o bh+ -m conntrack --ctdir REPLY -m set --match-set " POLICY_SET
                 " dst,src,src -j MARK --set-xmark 0x%x/0x%x\n",
                 mark, mark);
}

static bool line_is(const char *line, size_t n, const char *text)
{
        return n == strlen(text) && memcmp(line, text, n) == 0;
}

static bool line_starts(const char *line, size_t n, const char *text)
{
        return n >= strlen(text) && memcmp(line, text, strlen(text)) == 0;
}

void policy_state_parse(struct policy_state *ret, const char *save, uint32_t mark)
{
        _cleanup_buf_ struct buf want = {}, have = {};
        bool returned = false;

        *ret = (struct policy_state){};
        add_rules(&want, mark);
        for (const char *line = save, *end; *line; line = *end ? end + 1 : end) {
                end = strchrnul(line, '\n');
                size_t n = (size_t)(end - line);

                if (line_starts(line, n, ":DOCKER-USER "))
                        ret->has_user = true;
                else if (line_is(line, n, "-A FORWARD -j DOCKER-USER"))
                        ret->user_reached = true;
                else if (line_is(line, n, "-A FORWARD -j " POLICY_CHAIN))
                        ret->jump_forward = true;
                else if (line_is(line, n, "-A DOCKER-USER -j RETURN"))
                        returned = true;
                else if (line_is(line, n, "-A DOCKER-USER -j " POLICY_CHAIN))
                        ret->jump_user |= !returned;
                else if (line_starts(line, n, "-A " POLICY_CHAIN " ")) {
                        buf_add(&have, line, n);
                        buf_addc(&have, '\n');
                }
        }
        ret->chain_right = have.len == want.len && memcmp(have.data, want.data, want.len) == 0;
}

bool policy_state_right(const struct policy_state *s)
{
        if (!s->chain_right || (s->has_user && !s->jump_user))
                return false;
        return s->jump_forward || (s->has_user && s->user_reached);
}

void policy_text_load(struct buf *b, uint32_t mark, const struct policy_state *now)
{
        /* Naming the chain empties it within the transaction. */
        buf_adds(b, "*filter\n:" POLICY_CHAIN " - [0:0]\n");
        add_rules(b, mark);
        if (now->has_user && !now->jump_user)
                buf_adds(b, "-I DOCKER-USER 1 -j " POLICY_CHAIN "\n");
        /* Docker's nftables backend has no DOCKER-USER, and a flush leaves one that nobody jumps to. */
        if (!now->jump_forward && !(now->has_user && now->user_reached))
                buf_adds(b, "-I FORWARD 1 -j " POLICY_CHAIN "\n");
        buf_adds(b, "COMMIT\n");
}

bool policy_text_has_rules(const char *save)
{
        for (const char *line = save, *end; *line; line = *end ? end + 1 : end) {
                end = strchrnul(line, '\n');
                size_t n = (size_t)(end - line);

                if (line_starts(line, n, "-A "))
                        return true;
                if (n && line[0] == ':' && memmem(line, n, " DROP ", 6))
                        return true;
        }
        return false;
}

/* The protocol by its number: its name is only known where /etc/protocols is, which a small image lacks. */
static void add_entry(struct buf *b, const char *verb, const struct entry *e)
{
        char address[16], net[16];

        buf_addf(b, "%s " POLICY_SET " %s,%u:%u,%s/%u\n", verb, address_format(address, e->address), e->protocol, e->port,
                 address_format(net, e->net), e->prefix);
}

void policy_text_set(struct buf *b, const struct rules_delta *delta, bool create)
{
        if (create)
                buf_addf(b, "create " POLICY_SET " hash:ip,port,net family inet hashsize 4096 maxelem %d\n", POLICY_SET_MAX);
        for (size_t i = 0; i < delta->remove.n_entries; i++)
                add_entry(b, "del", &delta->remove.entries[i]);
        for (size_t i = 0; i < delta->add.n_entries; i++)
                add_entry(b, "add", &delta->add.entries[i]);
}
