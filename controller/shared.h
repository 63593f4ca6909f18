/*
 * A reference count around a value that several owners read: the registry and the forge's view, which outlive a reload while an action
 * still works from them. Single-threaded. Used by the controller only.
 */
#pragma once

#include "common/mem.h"

struct shared {
        unsigned refs;
        void *value;
        void (*free_value)(void *value);
};

static inline struct shared *shared_new(void *value, void (*free_value)(void *))
{
        struct shared *s = NEW(struct shared);

        *s = (struct shared){.refs = 1, .value = value, .free_value = free_value};
        return s;
}

static inline struct shared *shared_ref(struct shared *s)
{
        if (s)
                s->refs++;
        return s;
}

static inline struct shared *shared_unref(struct shared *s)
{
        if (s && --s->refs == 0) {
                s->free_value(s->value);
                free(s);
        }
        return NULL;
}
