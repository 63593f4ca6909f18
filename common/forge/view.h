/*
 * A view as JSON, between the helper and whoever started it; and the question which record decides. Private to common/forge/.
 */
#pragma once

#include "common/forge/forge.h"

#define FORGE_MAX_MESSAGE (16U << 20) /* bytes of the helper's input and output */

/* The approval with the highest serial of a server: the only one that can count. It may be refused by now (revoked key). NULL: none. */
const struct forge_item *view_deciding(const struct forge_view *view, const char *server);
/* The helper's request. Owned. */
json_object *request_to_json(const struct conf *conf, const struct forge_state *state, time_t now);
/* *conf is filled with what forge_read() needs; both are owned by the caller. state may become NULL: it was lost. */
_must_check_ int request_from_json(struct conf **conf, struct forge_state **state, time_t *now, json_object *o, struct err **err);
/* Slim: without what no longer decides anything (see forge_read_start()). Owned. */
json_object *view_to_json(const struct forge_view *view);
_must_check_ int view_from_json(struct forge_view **ret, json_object *o, struct err **err);
