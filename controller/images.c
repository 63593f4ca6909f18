#include "controller/images.h"

/* More images than servers on any host; beyond it, what is known is forgotten and read again. */
#define IMAGES_MAX 4000

struct images {
        struct image_facts **facts; /* sorted by image id */
        size_t n;
};

struct images *images_new(void)
{
        return NEW(struct images);
}

static void forget_all(struct images *i)
{
        for (size_t k = 0; k < i->n; k++)
                image_facts_free(i->facts[k]);
        i->n = 0;
}

struct images *images_free(struct images *i)
{
        if (i) {
                forget_all(i);
                free(i->facts);
                free(i);
        }
        return NULL;
}

/* Where an id is, or belongs. */
static size_t position(const struct images *i, const char *id)
{
        size_t low = 0, high = i->n;

        while (low < high) {
                size_t middle = (low + high) / 2;
                if (strcmp(i->facts[middle]->image_id, id) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

const struct image_facts *images_find(const struct images *i, const char *id)
{
        size_t k = id ? position(i, id) : i->n;

        return k < i->n && str_eq(i->facts[k]->image_id, id) ? i->facts[k] : NULL;
}

void images_add(struct images *i, struct image_facts *facts)
{
        if (!facts->image_id || images_find(i, facts->image_id)) {
                image_facts_free(facts);
                return;
        }
        if (i->n >= IMAGES_MAX)
                forget_all(i);
        size_t k = position(i, facts->image_id);
        i->facts = mem_realloc(i->facts, i->n + 1, sizeof(struct image_facts *));
        memmove(i->facts + k + 1, i->facts + k, (i->n - k) * sizeof(struct image_facts *));
        i->facts[k] = facts;
        i->n++;
}
