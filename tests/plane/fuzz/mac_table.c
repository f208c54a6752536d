/* The MAC table: any sequence of calls keeps the limit per peer, and the list agrees with what can
 * be found. */
#include "mac_table.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STEP = 5, PEERS = 4, LIMIT = 6, AGE_S = 60, PAGE = 3 };

static void require(bool kept) {
    if (!kept) {
        abort();
    }
}

static void check_list(struct mac_table *table, uint64_t now_ns) {
    size_t held[PEERS] = {0};
    struct listed_mac page[PAGE];
    uint32_t cursor = 0;
    do {
        size_t count = mac_table_list(table, page, PAGE, &cursor);
        for (size_t i = 0; i < count; i++) {
            require(page[i].peer < PEERS);
            held[page[i].peer] += page[i].is_static == 0;
            uint32_t found = mac_table_find(table, page[i].mac, page[i].vlan, now_ns);
            require(found == page[i].peer || found == MAC_NONE);
        }
    } while (cursor != 0);
    for (unsigned peer = 0; peer < PEERS; peer++) {
        require(held[peer] <= LIMIT);
    }
}

static void take(struct mac_table *table, const uint8_t *step, uint64_t now_ns) {
    const uint8_t mac[6] = {step[1] & 3, 0, 0, 0, 0, step[2] % 16};
    uint16_t vlan = step[3] % 3;
    uint32_t peer = step[4] % PEERS;
    switch (step[0] % 16) {
    case 0:
        mac_table_remove_peer(table, peer);
        break;
    case 1:
        mac_table_age(table, now_ns);
        break;
    case 2: {
        struct wire_mac macs[2] = {{{2, 0, 0, 0, 0, step[2] % 16}, {0}},
                                   {{2, 0, 0, 0, 0, step[3] % 16}, {0}}};
        uint32_t count = step[2] % 16 == step[3] % 16 ? step[1] % 2 : step[1] % 3;
        require(mac_table_set_static(table, macs, count, peer) == 0);
        break;
    }
    default: {
        enum mac_learned learned = mac_table_learn(table, mac, vlan, peer, now_ns);
        uint32_t found = mac_table_find(table, mac, vlan, now_ns);
        bool is_taken = learned != MAC_REFUSED && learned != MAC_FORBIDDEN;
        require(is_taken ? found == peer : found != peer || (mac[0] & 1) == 0);
        require((mac[0] & 1) == 0 || (learned == MAC_REFUSED && found == MAC_NONE));
    }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct mac_table *table = mac_table_new(LIMIT, AGE_S);
    require(table != NULL);
    uint64_t now_ns = UINT64_C(1000000000);
    for (; size >= STEP; data += STEP, size -= STEP) {
        now_ns += (uint64_t)(data[0] >> 4) * UINT64_C(1000000000);
        take(table, data, now_ns);
        check_list(table, now_ns);
    }
    mac_table_free(table);
    return 0;
}
