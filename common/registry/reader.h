/*
 * The kinds of values of a registry entry. Not used outside this folder.
 */
#pragma once

#include "common/reader.h"
#include "common/registry/registry.h"

/* -- kinds of values, one file each ---------------------------------------------------------------------------------------- */
/* "host/name[:tag]@sha256:…" from an allowed registry. */
_must_check_ int image_check(const struct reader *r, const struct place *at, const char *image, struct err **err);
int parse_egress(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err);
int parse_mounts(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err);
int parse_env(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err);
int parse_sysctls(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err);
int parse_secrets(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err);
int parse_tools(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err);
int parse_address(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err);
int parse_tls_pins(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err);
int parse_headers(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err);
int parse_resources(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err);
int parse_smoke_test(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err);
/* Dotted decimal without leading zeros, in host byte order. */
bool ipv4_parse(uint32_t *ret, const char *s, size_t n);
/* "192.0.2.0/24" of the configuration, which checked it. */
bool ipv4_network_parse(uint32_t *ret, unsigned *prefix, const char *s);
/* From / on, with letters, digits and . _ ~ - only, no empty and no dotted parts. */
bool url_path_valid(const char *path);
/* What `url` alone says: address, port and path of the entry, and what must not stand beside it. */
_must_check_ int external_read(const struct reader *r, const struct place *at, struct registry_entry *e, json_object *o, struct err **err);
/* No mount's source may lie below one that a server may write: that server could replace it by a link out of the allowed roots. */
_must_check_ int check_mounts_apart(const struct reader *r, const struct place *servers, const struct registry *reg, struct err **err);
/* Reads one whole entry at its place. */
_must_check_ int entry_read(struct registry_entry **ret, const struct reader *r, const struct place *at, const char *name,
                            json_object *value, struct err **err);
