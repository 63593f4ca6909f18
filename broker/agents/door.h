/*
 * The door for agents: listeners that know who calls by signed token, and behind them one decision for everything that is seen or done,
 * over MCP (/mcp) and plain HTTP (/v1). Whoever has no token that counts learns nothing, and what an agent may not use does not exist for
 * it. Used by bulkhead-broker.
 */
#pragma once

#include "broker/gateway/gateway.h"
#include "common/conf.h"

struct door;

/*
 * conf is borrowed. Policy and agents that are missing or bad are no error: then nobody gets in, and the log says why. -1: the state
 * directory cannot be used, or an address cannot be listened on. callers: connections of all addresses together.
 */
_must_check_ int door_new(struct door **ret, sd_event *loop, const struct conf *conf, struct gateway *gateway, unsigned callers,
                          struct err **err);
/* Agents and policy are read again; the last good ones stay in force. */
void door_reload(struct door *d);
/* changed is called now and whenever they change: what people must know of the policy and the file of agents. */
void door_on_troubles(struct door *d, void (*changed)(char *const *troubles, void *user), void *user);
/* Before the gateway is freed: what is under way is answered, and nothing is asked of the gateway any more. */
void door_stop(struct door *d);
/* After the gateway. */
struct door *door_free(struct door *d);
DEFINE_FREEP(struct door *, door_free)

/* Calls that wait for a human, for the link: each(text, to) with a JSON object; and what one says about one. */
void door_list_calls(void (*each)(const char *text, void *to), void *to, void *door);
_must_check_ int door_decide_call(const char *id, bool approve, uint64_t valid_ms, const char *by, void *door, struct err **err);

uint16_t door_port(const struct door *d); /* of the first address */
/* Prometheus text, for the operator's port; appended. */
void door_metrics(const struct door *d, struct buf *out);
