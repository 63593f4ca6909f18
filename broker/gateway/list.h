/*
 * Rings of things that are linked without memory of their own. A head is initialised; an item is zeroed and may be taken out twice.
 * Used inside the gateway.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct list {
        struct list *prev, *next;
};

static inline void list_init(struct list *head)
{
        head->prev = head->next = head;
}

static inline bool list_empty(const struct list *head)
{
        return head->next == head;
}

static inline bool list_linked(const struct list *item)
{
        return item->next != NULL;
}

/* Puts item at the end. */
static inline void list_add(struct list *head, struct list *item)
{
        item->prev = head->prev;
        item->next = head;
        head->prev->next = item;
        head->prev = item;
}

static inline void list_del(struct list *item)
{
        if (!item->next)
                return;
        item->prev->next = item->next;
        item->next->prev = item->prev;
        item->prev = item->next = NULL;
}

#define list_entry(p, type, member)    ((type *)(void *)((char *)(p)-offsetof(type, member)))
#define list_first(head, type, member) (list_empty(head) ? NULL : list_entry((head)->next, type, member))
/* The body may take the current item out (and free it), no other one. */
#define LIST_FOREACH(item, head, type, member)                                                                                             \
        for (struct list *_p_##item = (head)->next, *_n_##item = _p_##item->next;                                                          \
             _p_##item != (head) && ((item) = list_entry(_p_##item, type, member), true);                                                  \
             _p_##item = _n_##item, _n_##item = _p_##item->next)
