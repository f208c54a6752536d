#include "networks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"

/* Nodes live in one array and name each other by position, 0 meaning none. A node without a
 * peer only joins two branches; it always has both children, so a lookup passes at most one
 * such node per prefix and the tries hold fewer than twice as many nodes as prefixes. */

/* An address as two numbers, first bit highest; IPv4 fills the upper half of `high`. */
struct bits {
    uint64_t high;
    uint64_t low;
};

struct node {
    struct bits key; /* zero beyond `length` */
    uint32_t child[2];
    uint32_t parent; /* 0: this is the root of its family */
    uint32_t peer;   /* NETWORKS_NONE: a joint */
    uint32_t newer;  /* the peer's list; free nodes: next free in `older` */
    uint32_t older;
    uint8_t length;
    uint8_t family;
};

struct holding {
    uint32_t newest;
    uint32_t count;
};

struct networks {
    struct node *nodes;
    uint32_t capacity;
    uint32_t used; /* nodes ever taken, position 0 included */
    uint32_t free; /* list of nodes given back */
    uint32_t free_count;
    uint32_t root[2];
    struct holding peers[COUNTERS_PEER_MAX];
};

static uint64_t upper_mask(unsigned length) {
    return length == 0 ? 0 : UINT64_MAX << (64 - length);
}

static struct bits mask_of(unsigned length) {
    return (struct bits){
        .high = upper_mask(length < 64 ? length : 64),
        .low = upper_mask(length < 64 ? 0 : length - 64),
    };
}

static struct bits bits_of(uint8_t family, const uint8_t *address) {
    if (family == 4) {
        return (struct bits){.high = (uint64_t)load_be32(address) << 32};
    }
    return (struct bits){.high = load_be64(address), .low = load_be64(address + 8)};
}

/* 0 or 1; of no meaning but without harm at a position behind the last bit. */
static unsigned bit_at(struct bits key, unsigned position) {
    uint64_t half = position < 64 ? key.high : key.low;
    return half >> (63 - position % 64) & 1u;
}

static unsigned common_length(struct bits a, struct bits b, unsigned limit) {
    unsigned common = 128;
    if (a.high != b.high) {
        common = (unsigned)__builtin_clzll(a.high ^ b.high);
    } else if (a.low != b.low) {
        common = 64 + (unsigned)__builtin_clzll(a.low ^ b.low);
    }
    return common < limit ? common : limit;
}

static bool contains(const struct node *node, struct bits key) {
    struct bits mask = mask_of(node->length);
    return (((key.high ^ node->key.high) & mask.high) | ((key.low ^ node->key.low) & mask.low)) ==
           0;
}

static unsigned width_of(uint8_t family) {
    return family == 4 ? 32 : 128;
}

struct networks *networks_new(void) {
    struct networks *networks = calloc(1, sizeof(*networks));
    if (networks != NULL) {
        networks->used = 1;
    }
    return networks;
}

void networks_free(struct networks *networks) {
    if (networks != NULL) {
        free(networks->nodes);
        free(networks);
    }
}

bool network_is_valid(const struct wire_network *network) {
    if (network->family != 4 && network->family != 6) {
        return false;
    }
    if (network->prefix > width_of(network->family) || network->zero[0] != 0 ||
        network->zero[1] != 0) {
        return false;
    }
    /* All 16 bytes: those that IPv4 leaves over must be zero as well. */
    struct bits key = bits_of(6, network->address);
    struct bits mask = mask_of(network->prefix);
    return (key.high & ~mask.high) == 0 && (key.low & ~mask.low) == 0;
}

static int reserve_nodes(struct networks *networks, size_t count) {
    size_t unused = networks->capacity - networks->used + networks->free_count;
    if (networks->capacity != 0 && unused >= count) {
        return 0;
    }
    size_t capacity = (size_t)networks->used + count;
    if (capacity < 2 * (size_t)networks->capacity) {
        capacity = 2 * (size_t)networks->capacity;
    }
    if (capacity > UINT32_MAX) {
        return -ENOMEM;
    }
    struct node *nodes = realloc(networks->nodes, capacity * sizeof(*nodes));
    if (nodes == NULL) {
        return -ENOMEM;
    }
    networks->nodes = nodes;
    networks->capacity = (uint32_t)capacity;
    return 0;
}

int networks_reserve(struct networks *networks, size_t count) {
    /* A prefix takes its own node and at most one joint. */
    return count > UINT32_MAX / 4 ? -ENOMEM : reserve_nodes(networks, 2 * count);
}

/* Needs room reserved before. */
static uint32_t node_take(struct networks *networks, struct bits key, unsigned length,
                          uint8_t family) {
    uint32_t at = networks->free;
    if (at != 0) {
        networks->free = networks->nodes[at].older;
        networks->free_count--;
    } else {
        at = networks->used++;
    }
    struct bits mask = mask_of(length);
    networks->nodes[at] = (struct node){
        .key = {.high = key.high & mask.high, .low = key.low & mask.low},
        .peer = NETWORKS_NONE,
        .length = (uint8_t)length,
        .family = family,
    };
    return at;
}

static void node_give_back(struct networks *networks, uint32_t at) {
    networks->nodes[at] = (struct node){.peer = NETWORKS_NONE, .older = networks->free};
    networks->free = at;
    networks->free_count++;
}

/* The place that names the node: its parent's child or the family's root. */
static uint32_t *place_of(struct networks *networks, uint32_t at) {
    const struct node *node = &networks->nodes[at];
    if (node->parent == 0) {
        return &networks->root[node->family == 6];
    }
    struct node *parent = &networks->nodes[node->parent];
    return &parent->child[bit_at(node->key, parent->length)];
}

static void attach(struct networks *networks, uint32_t parent, uint32_t at) {
    networks->nodes[at].parent = parent;
    *place_of(networks, at) = at;
}

/* Puts `upper` where `lower` stands, and `lower` below it. */
static void put_above(struct networks *networks, uint32_t upper, uint32_t lower) {
    attach(networks, networks->nodes[lower].parent, upper);
    attach(networks, upper, lower);
}

/* The node of exactly this prefix, made if there was none. Needs room for two nodes. */
static uint32_t node_of_prefix(struct networks *networks, uint8_t family, struct bits key,
                               unsigned length) {
    uint32_t parent = 0;
    uint32_t at = networks->root[family == 6];
    while (at != 0) {
        const struct node *node = &networks->nodes[at];
        if (node->length > length || !contains(node, key)) {
            break;
        }
        if (node->length == length) {
            return at;
        }
        parent = at;
        at = node->child[bit_at(key, node->length)];
    }
    uint32_t fresh = node_take(networks, key, length, family);
    if (at == 0) {
        attach(networks, parent, fresh);
        return fresh;
    }
    const struct node *other = &networks->nodes[at];
    unsigned limit = other->length < length ? other->length : length;
    unsigned common = common_length(key, other->key, limit);
    if (common == length) {
        put_above(networks, fresh, at);
        return fresh;
    }
    uint32_t joint = node_take(networks, key, common, family);
    put_above(networks, joint, at);
    attach(networks, joint, fresh);
    return fresh;
}

/* The node of exactly this prefix, or 0. */
static uint32_t node_find(const struct networks *networks, const struct wire_network *network) {
    struct bits key = bits_of(network->family, network->address);
    uint32_t at = networks->root[network->family == 6];
    while (at != 0) {
        const struct node *node = &networks->nodes[at];
        if (node->length > network->prefix || !contains(node, key)) {
            return 0;
        }
        if (node->length == network->prefix) {
            return at;
        }
        at = node->child[bit_at(key, node->length)];
    }
    return 0;
}

static void list_push(struct networks *networks, uint32_t at, uint32_t peer) {
    struct holding *holding = &networks->peers[peer];
    struct node *node = &networks->nodes[at];
    node->peer = peer;
    node->newer = 0;
    node->older = holding->newest;
    if (holding->newest != 0) {
        networks->nodes[holding->newest].newer = at;
    }
    holding->newest = at;
    holding->count++;
}

static void list_drop(struct networks *networks, uint32_t at) {
    struct node *node = &networks->nodes[at];
    struct holding *holding = &networks->peers[node->peer];
    if (node->newer != 0) {
        networks->nodes[node->newer].older = node->older;
    } else {
        holding->newest = node->older;
    }
    if (node->older != 0) {
        networks->nodes[node->older].newer = node->newer;
    }
    holding->count--;
    node->peer = NETWORKS_NONE;
}

int networks_add(struct networks *networks, const struct wire_network *network, uint32_t peer) {
    if (!network_is_valid(network) || peer >= COUNTERS_PEER_MAX) {
        return -EINVAL;
    }
    int error = reserve_nodes(networks, 2);
    if (error != 0) {
        return error;
    }
    struct bits key = bits_of(network->family, network->address);
    uint32_t at = node_of_prefix(networks, network->family, key, network->prefix);
    uint32_t former = networks->nodes[at].peer;
    if (former == peer) {
        return 0;
    }
    if (former != NETWORKS_NONE) {
        list_drop(networks, at);
    }
    list_push(networks, at, peer);
    return 0;
}

/* Takes a node out that has no peer and less than two children; then perhaps its parent, which
 * may have been a joint of the two. */
static void unlink_idle(struct networks *networks, uint32_t at) {
    while (at != 0) {
        const struct node *node = &networks->nodes[at];
        if (node->peer != NETWORKS_NONE || (node->child[0] != 0 && node->child[1] != 0)) {
            return;
        }
        uint32_t parent = node->parent;
        uint32_t child = node->child[0] != 0 ? node->child[0] : node->child[1];
        *place_of(networks, at) = child;
        if (child != 0) {
            networks->nodes[child].parent = parent;
        }
        node_give_back(networks, at);
        at = parent;
    }
}

int networks_remove(struct networks *networks, const struct wire_network *network, uint32_t peer) {
    if (!network_is_valid(network) || peer >= COUNTERS_PEER_MAX) {
        return -ENOENT;
    }
    uint32_t at = node_find(networks, network);
    if (at == 0 || networks->nodes[at].peer != peer) {
        return -ENOENT;
    }
    list_drop(networks, at);
    unlink_idle(networks, at);
    return 0;
}

void networks_remove_peer(struct networks *networks, uint32_t peer) {
    if (peer >= COUNTERS_PEER_MAX) {
        return;
    }
    uint32_t at;
    while ((at = networks->peers[peer].newest) != 0) {
        list_drop(networks, at);
        unlink_idle(networks, at);
    }
}

uint32_t networks_find(const struct networks *networks, uint8_t family, const uint8_t *address) {
    struct bits key = bits_of(family, address);
    uint32_t found = NETWORKS_NONE;
    uint32_t at = networks->root[family == 6];
    while (at != 0) {
        const struct node *node = &networks->nodes[at];
        if (!contains(node, key)) {
            break;
        }
        if (node->peer != NETWORKS_NONE) {
            found = node->peer;
        }
        at = node->child[bit_at(key, node->length)];
    }
    return found;
}

size_t networks_count(const struct networks *networks, uint32_t peer) {
    return peer < COUNTERS_PEER_MAX ? networks->peers[peer].count : 0;
}

static void store_address(uint8_t address[16], const struct node *node) {
    store_be64(address, node->key.high);
    store_be64(address + 8, node->key.low);
}

size_t networks_list(const struct networks *networks, uint32_t peer, struct wire_network *out,
                     size_t max) {
    if (peer >= COUNTERS_PEER_MAX) {
        return 0;
    }
    size_t written = 0;
    uint32_t at = networks->peers[peer].newest;
    for (; at != 0 && written < max; at = networks->nodes[at].older) {
        const struct node *node = &networks->nodes[at];
        out[written] = (struct wire_network){.family = node->family, .prefix = node->length};
        store_address(out[written].address, node);
        written++;
    }
    return networks->peers[peer].count;
}
