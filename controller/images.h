/*
 * What is known of images, by the Engine's image id: an id names its content, so what was read once stays true. A judgement of drift needs
 * the variables and commands that an image brings. Used by the controller only.
 */
#pragma once

#include "common/spec/spec.h"

struct images;
struct images *images_new(void);
struct images *images_free(struct images *i);
DEFINE_FREEP(struct images *, images_free)
/* Borrowed until the next images_add(); NULL = not read yet. id may be NULL. */
const struct image_facts *images_find(const struct images *i, const char *id);
/* Takes facts over. */
void images_add(struct images *i, struct image_facts *facts);
