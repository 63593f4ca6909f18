/*
 * The controller's side of the link to the broker (common/link/channel.h). Who faces agents may ask for three things by a server's name;
 * image, secrets, limits and whether at all are decided here. The controller never reads a byte of a stream that it hands over.
 *   broker.c     the link's life, the catalogue that is told, the three questions
 *   catalogue.c  what is told of one server, pure
 *   demand.c     who wants an on-demand server, and how many may run
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/json.h"
#include "common/link/channel.h"
#include "common/link/link.h"

struct broker;
struct controller;
struct key;

/* A stdio server's session: a stream that was attached before its start. */
struct session {
        int fd;                                  /* attached, to be handed over when the server has started; -1 = none */
        char *container;                         /* id of the one whose stream the broker has; NULL = of none */
        uint64_t since_us;                       /* CLOCK_MONOTONIC */
        char instance[CHANNEL_INSTANCE_HEX + 1]; /* what the broker knows it by */
};
/* The stream that was not handed over. */
void session_close(struct session *s);
/* That, and what the broker has does not count any more. */
void session_end(struct session *s);

/* Never fails: without the broker's user, or a place for the socket, nobody can come. The latter is tried again with broker_listen(). */
struct broker *broker_new(struct controller *c);
struct broker *broker_free(struct broker *b);
/* Listens unless it does already. */
void broker_listen(struct broker *b);
/* For a NULL broker: no. */
bool broker_linked(const struct broker *b);
/* Since when there is none, CLOCK_MONOTONIC; 0 = one is linked. */
uint64_t broker_alone_since_ms(const struct controller *c);
/*
 * Tells what changed since it was told last. ends_only: just which servers may not be called any more, which is known before anybody has
 * looked at the Engine.
 */
void broker_tell(struct controller *c, bool ends_only);
/* The server has started: its stream goes to the broker. */
void broker_hand_over(struct key *key);
/* Which calls of agents wait for a human: conn is answered {"calls": [text, …]}, each a JSON object that nobody here has read. */
void broker_ask_calls(struct broker *b, struct link_conn *conn);
/* {"id", "approve", "valid_ms", "by"} */
void broker_decide_call(struct broker *b, struct link_conn *conn, json_object *request);
/* For `status` and `doctor`. Owned. */
json_object *broker_json(const struct controller *c);
