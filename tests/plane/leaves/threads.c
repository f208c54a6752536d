/* What the plane's threads do to the leaves at the same time, for ThreadSanitizer and for the
 * invariants: learning, finding, ageing and listing of Ethernet addresses, static ones, and the
 * early look into a replay window beside the thread that accepts. Ends with 0 or says what broke.
 */
#include "mac_table.h"
#include "replay.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { HOSTS = 500, TURNS = 20000, COUNTERS = 200000, THREADS = 4 };

static struct mac_table *table;
static struct replay_window window;
static atomic_uint_fast64_t accepted; /* counters below this one were accepted */
static atomic_int broken;

static void expect(bool kept, const char *what) {
    if (!kept) {
        fprintf(stderr, "%s\n", what);
        atomic_store(&broken, 1);
    }
}

/* An address that is one peer's alone, given to it again and again while others learn. */
static void set_own(unsigned worker) {
    struct wire_mac own = {.mac = {2, 1, 0, 0, 0, (uint8_t)worker}};
    uint32_t peer = HOSTS + worker;
    expect(mac_table_set_static(table, &own, 1, peer) == 0, "no room for a static address");
    expect(mac_table_find(table, own.mac, 0, 0) == peer, "a static address is not where it is");
    expect(mac_table_learn(table, own.mac, 0, 0, 0) == MAC_FORBIDDEN, "another took it");
}

static void *use_table(void *argument) {
    unsigned worker = *(const unsigned *)argument;
    for (unsigned turn = 0; turn < TURNS; turn++) {
        unsigned host = (turn * 7 + worker) % HOSTS;
        uint8_t mac[6] = {2, 0, 0, 0, (uint8_t)(host >> 8), (uint8_t)host};
        /* Half of the hosts stay where they are, the others move between the workers' peers. */
        uint32_t peer = host % 2 == 0 ? host : worker;
        uint64_t now = UINT64_C(1000000000) * (1 + turn / 1000);
        enum mac_learned learned = mac_table_learn(table, mac, 0, peer, now);
        uint32_t found = mac_table_find(table, mac, 0, now);
        if (host % 2 == 0) {
            expect(learned != MAC_MOVED && learned != MAC_REFUSED, "a host moved by itself");
            expect(found == host, "a host is not where it is");
        } else {
            expect(found < THREADS, "a moving host is behind no worker");
        }
        if (turn % 1000 == 0) {
            mac_table_age(table, now);
        }
        if (turn % 512 == 0) {
            set_own(worker);
            struct listed_mac page[64];
            uint32_t cursor = 0;
            size_t total = 0;
            do {
                total += mac_table_list(table, page, 64, &cursor);
            } while (cursor != 0);
            expect(total <= HOSTS + THREADS, "more entries than hosts");
        }
    }
    return NULL;
}

static void *accept_counters(void *argument) {
    (void)argument;
    for (uint64_t counter = 0; counter < COUNTERS; counter += 64) {
        if (counter % 128 == 0) {
            expect(replay_accept_run(&window, counter, 64), "a run above the top was not taken");
        } else {
            for (uint64_t one = counter; one < counter + 64; one++) {
                expect(replay_accept(&window, one), "a fresh counter was refused");
            }
        }
        atomic_store(&accepted, counter + 64);
    }
    return NULL;
}

static void *look_early(void *argument) {
    (void)argument;
    for (unsigned turn = 0; turn < COUNTERS; turn++) {
        uint64_t below = atomic_load(&accepted);
        expect(below == 0 || !replay_is_new(&window, below - 1), "an accepted counter looks new");
        expect(replay_is_new(&window, COUNTERS + turn), "a counter never used looks old");
    }
    return NULL;
}

int main(void) {
    table = mac_table_new(HOSTS, 300);
    if (table == NULL) {
        return EXIT_FAILURE;
    }
    pthread_t threads[THREADS + 2];
    unsigned workers[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = i;
        pthread_create(&threads[i], NULL, use_table, &workers[i]);
    }
    pthread_create(&threads[THREADS], NULL, accept_counters, NULL);
    pthread_create(&threads[THREADS + 1], NULL, look_early, NULL);
    for (unsigned i = 0; i < THREADS + 2; i++) {
        pthread_join(threads[i], NULL);
    }
    mac_table_free(table);
    return atomic_load(&broken);
}
