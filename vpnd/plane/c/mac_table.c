#include "mac_table.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/random.h>

#include "bytes.h"
#include "clock.h"

/* Entries live in one array and name each other by position, 0 meaning none: chains of a hash
 * table, and the list of free ones. The lock guards all of it, except `seen_at_ns`, which
 * readers of the lock may advance atomically. */

#define BUCKETS_MIN     64u
#define AGE_SLICE       4096u               /* entries looked at under one hold of the lock */
#define STAMP_GRAIN_NS  (NS_PER_SECOND / 2) /* an age is told no finer than this */
#define ENTRIES_CEILING (UINT32_C(1) << 30)
#define LINK_LIMIT      65536u              /* addresses on our side */
#define STATIC_BIT      (UINT64_C(1) << 60) /* in an address: it holds in every VLAN */
#define VLAN_BITS       UINT64_C(0x0fff)

struct entry {
    uint64_t address; /* address_of; 0: this entry is free */
    uint64_t seen_at_ns;
    uint32_t peer;
    uint32_t next; /* in the chain, or the next free one */
};

struct mac_table {
    pthread_rwlock_t lock;
    uint64_t seed[3];
    uint64_t age_ns;
    uint32_t limit;
    uint32_t count;
    uint32_t *buckets;
    uint32_t bucket_count; /* a power of two */
    struct entry *entries;
    uint32_t capacity;
    uint32_t used; /* entries ever taken, position 0 included */
    uint32_t free;
    uint32_t held[MAC_LINK + 1];  /* learned entries per peer */
    uint32_t fixed[MAC_LINK + 1]; /* static ones */
};

/* Address and VLAN as one number, which is not 0 for any address that may be learned. */
static uint64_t address_of(const uint8_t mac[6], uint16_t vlan) {
    return (uint64_t)load_be32(mac) << 28 | (uint64_t)load_be16(mac + 4) << 12 | (vlan & 0x0fffu);
}

static bool may_be_learned(const uint8_t mac[6]) {
    static const uint8_t nobody[6];
    return (mac[0] & 1u) == 0 && memcmp(mac, nobody, sizeof(nobody)) != 0;
}

/* Multilinear hashing over a secret seed: for any two addresses the chance to meet in a bucket
 * is that of two random numbers, whoever chose them. */
static uint32_t *bucket_of(const struct mac_table *table, uint64_t address) {
    uint64_t sum =
        table->seed[0] + table->seed[1] * (address >> 32) + table->seed[2] * (address & UINT32_MAX);
    return &table->buckets[sum >> 32 & (table->bucket_count - 1)];
}

static uint32_t find_entry(const struct mac_table *table, uint64_t address) {
    uint32_t at = *bucket_of(table, address);
    while (at != 0 && table->entries[at].address != address) {
        at = table->entries[at].next;
    }
    return at;
}

static uint64_t seen_at(const struct entry *entry) {
    return __atomic_load_n(&entry->seen_at_ns, __ATOMIC_RELAXED);
}

static bool is_outdated(const struct mac_table *table, const struct entry *entry, uint64_t now_ns) {
    uint64_t seen = seen_at(entry);
    return now_ns > seen && now_ns - seen > table->age_ns;
}

static uint64_t static_of(uint64_t address) {
    return (address & ~VLAN_BITS) | STATIC_BIT;
}

/* May the peer show this address? */
static bool may_use(const struct mac_table *table, uint64_t address, uint32_t peer) {
    uint32_t at = find_entry(table, static_of(address));
    return at != 0 ? table->entries[at].peer == peer : table->fixed[peer] == 0;
}

static bool has_room(const struct mac_table *table, uint32_t peer) {
    return table->held[peer] < (peer == MAC_LINK ? LINK_LIMIT : table->limit);
}

static uint64_t age_of_seconds(uint32_t age_s) {
    return age_s * NS_PER_SECOND;
}

struct mac_table *mac_table_new(uint32_t limit_per_peer, uint32_t age_s) {
    struct mac_table *table = calloc(1, sizeof(*table));
    if (table == NULL) {
        return NULL;
    }
    table->buckets = calloc(BUCKETS_MIN, sizeof(*table->buckets));
    if (table->buckets == NULL ||
        getrandom(table->seed, sizeof(table->seed), 0) != (ssize_t)sizeof(table->seed) ||
        pthread_rwlock_init(&table->lock, NULL) != 0) {
        free(table->buckets);
        free(table);
        return NULL;
    }
    table->bucket_count = BUCKETS_MIN;
    table->used = 1;
    table->limit = limit_per_peer;
    table->age_ns = age_of_seconds(age_s);
    return table;
}

void mac_table_free(struct mac_table *table) {
    if (table != NULL) {
        pthread_rwlock_destroy(&table->lock);
        free(table->entries);
        free(table->buckets);
        free(table);
    }
}

void mac_table_set_limits(struct mac_table *table, uint32_t limit_per_peer, uint32_t age_s) {
    pthread_rwlock_wrlock(&table->lock);
    table->limit = limit_per_peer;
    table->age_ns = age_of_seconds(age_s);
    pthread_rwlock_unlock(&table->lock);
}

static void chain_push(struct mac_table *table, uint32_t at) {
    uint32_t *bucket = bucket_of(table, table->entries[at].address);
    table->entries[at].next = *bucket;
    *bucket = at;
}

/* Twice the buckets, so that chains stay short. Without memory the chains grow instead. */
static void widen(struct mac_table *table) {
    uint32_t wanted = table->bucket_count * 2;
    uint32_t *buckets = calloc(wanted, sizeof(*buckets));
    if (buckets == NULL) {
        return;
    }
    free(table->buckets);
    table->buckets = buckets;
    table->bucket_count = wanted;
    for (uint32_t at = 1; at < table->used; at++) {
        if (table->entries[at].address != 0) {
            chain_push(table, at);
        }
    }
}

/* Position of a free entry, or 0 when there is no memory for one. */
static uint32_t entry_take(struct mac_table *table) {
    uint32_t at = table->free;
    if (at != 0) {
        table->free = table->entries[at].next;
        return at;
    }
    if (table->used >= table->capacity) {
        uint32_t capacity = table->capacity == 0 ? BUCKETS_MIN : table->capacity * 2;
        struct entry *entries = capacity > ENTRIES_CEILING
                                    ? NULL
                                    : realloc(table->entries, capacity * sizeof(*entries));
        if (entries == NULL) {
            return 0;
        }
        table->entries = entries;
        table->capacity = capacity;
    }
    return table->used++;
}

/* `at` is a free entry that was taken. */
static void put(struct mac_table *table, uint32_t at, const struct entry *entry) {
    table->entries[at] = *entry;
    chain_push(table, at);
    table->count++;
    if (table->count > table->bucket_count) {
        widen(table);
    }
}

static enum mac_learned insert(struct mac_table *table, uint64_t address, uint32_t peer,
                               uint64_t now_ns) {
    uint32_t at = has_room(table, peer) ? entry_take(table) : 0;
    if (at == 0) {
        return MAC_REFUSED;
    }
    table->held[peer]++;
    put(table, at, &(struct entry){.address = address, .seen_at_ns = now_ns, .peer = peer});
    return MAC_NEW;
}

static void give_back(struct mac_table *table, uint32_t at) {
    table->entries[at] = (struct entry){.next = table->free};
    table->free = at;
}

static void forget(struct mac_table *table, uint32_t at) {
    struct entry *entry = &table->entries[at];
    uint32_t *link = bucket_of(table, entry->address);
    while (*link != at) {
        link = &table->entries[*link].next;
    }
    *link = entry->next;
    if ((entry->address & STATIC_BIT) != 0) {
        table->fixed[entry->peer]--;
    } else {
        table->held[entry->peer]--;
    }
    table->count--;
    give_back(table, at);
}

/* Under the write lock. */
static enum mac_learned learn(struct mac_table *table, uint64_t address, uint32_t peer,
                              uint64_t now_ns) {
    uint32_t at = find_entry(table, address);
    if (at != 0 && is_outdated(table, &table->entries[at], now_ns)) {
        forget(table, at);
        at = 0;
    }
    if (!may_use(table, address, peer)) {
        return MAC_FORBIDDEN;
    }
    if (at == 0) {
        return insert(table, address, peer, now_ns);
    }
    struct entry *entry = &table->entries[at];
    if (entry->peer == peer) {
        entry->seen_at_ns = now_ns;
        return MAC_KNOWN;
    }
    if (!has_room(table, peer)) {
        return MAC_REFUSED;
    }
    table->held[entry->peer]--;
    table->held[peer]++;
    entry->peer = peer;
    entry->seen_at_ns = now_ns;
    return MAC_MOVED;
}

/* The usual case, without keeping other threads away: the same peer, not outdated. */
static bool refresh(struct mac_table *table, uint64_t address, uint32_t peer, uint64_t now_ns) {
    pthread_rwlock_rdlock(&table->lock);
    uint32_t at = find_entry(table, address);
    struct entry *entry = at == 0 ? NULL : &table->entries[at];
    bool known = entry != NULL && entry->peer == peer && !is_outdated(table, entry, now_ns);
    if (known && now_ns > seen_at(entry) + STAMP_GRAIN_NS) {
        __atomic_store_n(&entry->seen_at_ns, now_ns, __ATOMIC_RELAXED);
    }
    pthread_rwlock_unlock(&table->lock);
    return known;
}

enum mac_learned mac_table_learn(struct mac_table *table, const uint8_t mac[6], uint16_t vlan,
                                 uint32_t peer, uint64_t now_ns) {
    if (!may_be_learned(mac) || peer > MAC_LINK) {
        return MAC_REFUSED;
    }
    uint64_t address = address_of(mac, vlan);
    if (refresh(table, address, peer, now_ns)) {
        return MAC_KNOWN;
    }
    pthread_rwlock_wrlock(&table->lock);
    enum mac_learned learned = learn(table, address, peer, now_ns);
    pthread_rwlock_unlock(&table->lock);
    return learned;
}

uint32_t mac_table_find(struct mac_table *table, const uint8_t mac[6], uint16_t vlan,
                        uint64_t now_ns) {
    pthread_rwlock_rdlock(&table->lock);
    uint64_t address = address_of(mac, vlan);
    uint32_t at = find_entry(table, address);
    if (at == 0 || is_outdated(table, &table->entries[at], now_ns)) {
        at = find_entry(table, static_of(address));
    }
    uint32_t peer = at != 0 ? table->entries[at].peer : MAC_NONE;
    pthread_rwlock_unlock(&table->lock);
    return peer;
}

void mac_table_age(struct mac_table *table, uint64_t now_ns) {
    uint32_t at = 1;
    bool more = true;
    while (more) {
        pthread_rwlock_wrlock(&table->lock);
        for (uint32_t slice = 0; slice < AGE_SLICE && at < table->used; slice++, at++) {
            struct entry *entry = &table->entries[at];
            if (entry->address != 0 && (entry->address & STATIC_BIT) == 0 &&
                is_outdated(table, entry, now_ns)) {
                forget(table, at);
            }
        }
        more = at < table->used;
        pthread_rwlock_unlock(&table->lock);
    }
}

void mac_table_remove_peer(struct mac_table *table, uint32_t peer) {
    if (peer >= COUNTERS_PEER_MAX) {
        return;
    }
    pthread_rwlock_wrlock(&table->lock);
    for (uint32_t at = 1; at < table->used && table->held[peer] + table->fixed[peer] > 0; at++) {
        if (table->entries[at].address != 0 && table->entries[at].peer == peer) {
            forget(table, at);
        }
    }
    pthread_rwlock_unlock(&table->lock);
}

/* ---- static addresses ---- */

/* Free entries for so many, or 0 of them. */
static bool take_entries(struct mac_table *table, uint32_t *taken, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        taken[i] = entry_take(table);
        if (taken[i] == 0) {
            while (i-- > 0) {
                give_back(table, taken[i]);
            }
            return false;
        }
        table->entries[taken[i]] = (struct entry){0}; /* free still, for whoever looks at all */
    }
    return true;
}

static void put_static(struct mac_table *table, uint32_t at, uint64_t address, uint32_t peer) {
    uint32_t former = find_entry(table, address);
    if (former != 0) {
        forget(table, former);
    }
    table->fixed[peer]++;
    put(table, at, &(struct entry){.address = address, .peer = peer});
}

/* Forgets the peer's former static addresses, or whatever may not be used any more. */
static void sweep(struct mac_table *table, bool is_static, uint32_t peer) {
    for (uint32_t at = 1; at < table->used; at++) {
        const struct entry *entry = &table->entries[at];
        if (entry->address == 0 || ((entry->address & STATIC_BIT) != 0) != is_static) {
            continue;
        }
        if (is_static ? entry->peer == peer : !may_use(table, entry->address, entry->peer)) {
            forget(table, at);
        }
    }
}

/* Has the peer just these already? They then keep their entries, and nothing is looked through. */
static bool is_set(const struct mac_table *table, const struct wire_mac *macs, uint32_t count,
                   uint32_t peer) {
    uint32_t found = 0;
    while (found < count) {
        uint32_t at = find_entry(table, static_of(address_of(macs[found].mac, 0)));
        if (at == 0 || table->entries[at].peer != peer) {
            return false;
        }
        found++;
    }
    return table->fixed[peer] == count;
}

int mac_table_set_static(struct mac_table *table, const struct wire_mac *macs, uint32_t count,
                         uint32_t peer) {
    uint32_t taken[WIRE_MACS_MAX];
    int error = 0;
    pthread_rwlock_wrlock(&table->lock);
    if (is_set(table, macs, count, peer)) {
        /* As it is. */
    } else if (count > WIRE_MACS_MAX || !take_entries(table, taken, count)) {
        error = -ENOMEM;
    } else {
        sweep(table, true, peer);
        for (uint32_t i = 0; i < count; i++) {
            put_static(table, taken[i], static_of(address_of(macs[i].mac, 0)), peer);
        }
        sweep(table, false, peer);
    }
    pthread_rwlock_unlock(&table->lock);
    return error;
}

static void describe(const struct entry *entry, struct listed_mac *out) {
    *out = (struct listed_mac){
        .vlan = (uint16_t)(entry->address & VLAN_BITS),
        .peer = entry->peer,
        .is_static = (entry->address & STATIC_BIT) != 0,
        .seen_at_ns = seen_at(entry),
    };
    store_be32(out->mac, (uint32_t)(entry->address >> 28));
    store_be16(out->mac + 4, (uint16_t)(entry->address >> 12));
}

size_t mac_table_list(struct mac_table *table, struct listed_mac *out, size_t max,
                      uint32_t *cursor) {
    size_t written = 0;
    pthread_rwlock_rdlock(&table->lock);
    uint32_t at = *cursor == 0 ? 1 : *cursor;
    for (; at < table->used && written < max; at++) {
        if (table->entries[at].address != 0 && table->entries[at].peer != MAC_LINK) {
            describe(&table->entries[at], &out[written++]);
        }
    }
    *cursor = at < table->used ? at : 0;
    pthread_rwlock_unlock(&table->lock);
    return written;
}
