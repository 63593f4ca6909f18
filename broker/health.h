/*
 * What the broker says of itself: /healthz (it answers), /readyz (it knows which servers there are), /metrics (Prometheus text; with the
 * token, where there is one). Used by its main.
 */
#pragma once

#include "broker/agents/door.h"
#include "broker/gateway/gateway.h"
#include "broker/http/front.h"
#include "broker/link.h"

struct health {
        const struct front *front;
        const struct gateway *gateway;
        const struct uplink *uplink;
        const struct door *door; /* NULL: none */
};

/* Answers x if its path is one of the three; else false, and x is as it was. */
bool health_exchange(const struct health *h, struct exchange *x);
