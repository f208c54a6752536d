/* The networks tries: any sequence of additions and removals, checked against a list of all
 * prefixes after each step. */
#include "networks.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STEP = 20, PEERS = 4, KEPT = 64 };

struct kept {
    struct wire_network network;
    uint32_t peer; /* NETWORKS_NONE: unused */
};

static void require(bool kept) {
    if (!kept) {
        abort();
    }
}

static bool covers(const struct wire_network *network, uint8_t family, const uint8_t *address) {
    if (network->family != family) {
        return false;
    }
    for (unsigned bit = 0; bit < network->prefix; bit++) {
        if (((network->address[bit / 8] ^ address[bit / 8]) >> (7 - bit % 8) & 1) != 0) {
            return false;
        }
    }
    return true;
}

static uint32_t find_in_list(const struct kept list[KEPT], uint8_t family, const uint8_t *address) {
    const struct kept *best = NULL;
    for (unsigned i = 0; i < KEPT; i++) {
        if (list[i].peer != NETWORKS_NONE && covers(&list[i].network, family, address) &&
            (best == NULL || list[i].network.prefix > best->network.prefix)) {
            best = &list[i];
        }
    }
    return best == NULL ? NETWORKS_NONE : best->peer;
}

static struct kept *place_in_list(struct kept list[KEPT], const struct wire_network *network) {
    struct kept *unused = NULL;
    for (unsigned i = 0; i < KEPT; i++) {
        if (list[i].peer == NETWORKS_NONE) {
            unused = &list[i];
        } else if (memcmp(&list[i].network, network, sizeof(*network)) == 0) {
            return &list[i];
        }
    }
    return unused;
}

/* 18 bytes: family and prefix, then the address, cut to the prefix unless a bit says not to. */
static struct wire_network network_from(const uint8_t *step) {
    struct wire_network network = {.family = step[0] % 8 < 4 ? 4 : 6, .prefix = step[1]};
    unsigned width = network.family == 4 ? 32 : 128;
    if ((step[0] & 0x40) == 0) {
        network.prefix = (uint8_t)(network.prefix % (width + 1));
        memcpy(network.address, step + 2, width / 8);
        for (unsigned bit = network.prefix; bit < width; bit++) {
            network.address[bit / 8] &= (uint8_t) ~(1u << (7 - bit % 8));
        }
    } else {
        memcpy(network.address, step + 2, 16);
    }
    return network;
}

static void take(struct networks *tries, struct kept list[KEPT], const uint8_t *step) {
    struct wire_network network = network_from(step);
    uint32_t peer = step[18] % PEERS;
    struct kept *place = place_in_list(list, &network);
    bool is_held = place != NULL && place->peer != NETWORKS_NONE;
    switch (step[19] % 8) {
    case 0:
        networks_remove_peer(tries, peer);
        for (unsigned i = 0; i < KEPT; i++) {
            list[i].peer = list[i].peer == peer ? NETWORKS_NONE : list[i].peer;
        }
        break;
    case 1:
    case 2:
    case 3:
        is_held = is_held && place->peer == peer;
        require((networks_remove(tries, &network, peer) == 0) == is_held);
        if (is_held) {
            place->peer = NETWORKS_NONE;
        }
        break;
    default:
        if (place != NULL) {
            bool valid = network_is_valid(&network);
            require((networks_add(tries, &network, peer) == 0) == valid);
            if (valid) {
                *place = (struct kept){network, peer};
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct networks *tries = networks_new();
    require(tries != NULL);
    struct kept list[KEPT];
    for (unsigned i = 0; i < KEPT; i++) {
        list[i].peer = NETWORKS_NONE;
    }
    for (; size >= STEP; data += STEP, size -= STEP) {
        take(tries, list, data);
        uint8_t family = data[0] % 8 < 4 ? 4 : 6;
        uint8_t address[16];
        memcpy(address, data + 2, sizeof(address));
        require(networks_find(tries, family, address) == find_in_list(list, family, address));
    }
    size_t counted = 0;
    size_t held = 0;
    for (uint32_t peer = 0; peer < PEERS; peer++) {
        counted += networks_count(tries, peer);
    }
    for (unsigned i = 0; i < KEPT; i++) {
        held += list[i].peer != NETWORKS_NONE;
    }
    require(counted == held);
    networks_free(tries);
    return 0;
}
