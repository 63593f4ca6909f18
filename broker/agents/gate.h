/*
 * The gate: tokens of agents against the file of those that count. Reads the file again when told; a bad one changes nothing. Time never
 * goes back here: what expired once stays so, also when somebody sets the clock back and restarts us.
 * Used by the door of the broker.
 */
#pragma once

#include "broker/agents/principal.h"
#include "common/err.h"

struct gate;

/*
 * agents_file: common/identity/identity.h; one that is missing or bad lets nobody in. state: the directory where the time is kept;
 * it must be readable. -1: the time that was kept cannot be read.
 */
_must_check_ int gate_new(struct gate **ret, const char *agents_file, const char *audience, const char *state, struct err **err);
struct gate *gate_free(struct gate *g);
DEFINE_FREEP(struct gate *, gate_free)
/* -1: the last good file stays in force. */
_must_check_ int gate_reload(struct gate *g, struct err **err);
/* Why the file that is there now is not the one in force; NULL: it is, or there never was one. Borrowed. */
const char *gate_trouble(const struct gate *g);
/* Whose token it is: a reference, or NULL. credential may be NULL. */
struct principal *gate_identify(struct gate *g, const char *credential, size_t n);
/* Would its token still count? For what lives longer than a request. */
bool gate_still_counts(struct gate *g, const struct principal *p);
/* Does it not, for another reason than that its time is over? */
bool gate_has_revoked(const struct gate *g, const struct principal *p);
/* Later of the clock and what it was seen to be, in seconds. */
time_t gate_now(struct gate *g);
