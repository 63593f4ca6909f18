/*
 * What the daemon says of the servers and of itself, for people. Used by status, plan and apply, which all get it.
 */
#pragma once

#include "cli/cli.h"

/* What an operator must see first: signatures off, a gateway without a token, Engine away, rules not in force, registry or approvals not
 * loaded. */
void view_alarms(struct out *o, json_object *status);
/* Of those, the one about the gateway: that it asks for no token. */
void view_gateway_alarm(struct out *o, json_object *gateway);
/* One line: where it listens, and whether a broker is there. */
void view_gateway(struct out *o, json_object *gateway);
/* One line per server. now: to judge "expires soon". */
void view_servers(struct out *o, json_object *servers, time_t now);
/* Everything known of one server. */
void view_server(struct out *o, json_object *server, time_t now);
void view_actions(struct out *o, json_object *actions);
/* The whole status as counts for Prometheus. */
void view_metrics(struct out *o, json_object *status);
/* Expired or expiring within 24 hours? */
bool view_expires_soon(json_object *server, time_t now);
