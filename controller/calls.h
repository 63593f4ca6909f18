/*
 * Questions to the broker about calls that wait for a human, and who at the control socket waits for the answers. Used by the link to the
 * broker.
 */
#pragma once

#include "common/link/channel.h"
#include "common/link/link.h"

#define CALLS_MAX 256U /* in one answer; more are left out */

struct calls;
struct calls *calls_new(void);
/* Whoever waits is told that the broker went away. */
void calls_end(struct calls *calls);
struct calls *calls_free(struct calls *calls);
/* conn is answered later. The number to ask with. */
unsigned calls_asked(struct calls *calls, struct link_conn *conn);
/* CHANNEL_CALL or CHANNEL_DONE. */
void calls_answer(struct calls *calls, const struct channel_message *m);
