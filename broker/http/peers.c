#include <netinet/in.h>

#include "broker/http/internal.h"

static void key_of(unsigned char key[8], const struct sockaddr *address)
{
        memset(key, 0, 8);
        if (address->sa_family == AF_INET)
                memcpy(key, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
        else if (address->sa_family == AF_INET6)
                memcpy(key, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 8);
}

static size_t bucket_of(const unsigned char key[8])
{
        uint32_t h = 2166136261U;

        for (size_t i = 0; i < 8; i++)
                h = (h ^ key[i]) * 16777619U;
        return (h ^ h >> 16) % PEER_BUCKETS;
}

static struct peer *find(const struct peers *p, const unsigned char key[8])
{
        struct peer *peer = p->buckets[bucket_of(key)];

        while (peer && memcmp(peer->key, key, sizeof(peer->key)) != 0)
                peer = peer->next;
        return peer;
}

unsigned peers_count(const struct peers *p, const struct sockaddr *address)
{
        unsigned char key[8];

        key_of(key, address);
        const struct peer *peer = find(p, key);
        return peer ? peer->n : 0;
}

struct peer *peers_add(struct peers *p, const struct sockaddr *address)
{
        unsigned char key[8];

        key_of(key, address);
        struct peer *peer = find(p, key);
        if (!peer) {
                struct peer **bucket = &p->buckets[bucket_of(key)];

                peer = NEW(struct peer);
                memcpy(peer->key, key, sizeof(peer->key));
                peer->next = *bucket;
                *bucket = peer;
        }
        peer->n++;
        return peer;
}

void peers_remove(struct peers *p, struct peer *peer)
{
        if (!peer || --peer->n > 0)
                return;
        struct peer **at = &p->buckets[bucket_of(peer->key)];
        while (*at != peer)
                at = &(*at)->next;
        *at = peer->next;
        free(peer);
}
