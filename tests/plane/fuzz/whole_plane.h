/* A whole plane for fuzzers: everything that main.c opens but threads, sandbox and program.
 *
 * One per process; what an input did to it is undone by plane_clear, so that every input finds it
 * the same. It sends nothing: sendmmsg is wrapped by the linker, since an input names any address.
 */
#ifndef VPND_FUZZ_WHOLE_PLANE_H
#define VPND_FUZZ_WHOLE_PLANE_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "inbound.h"
#include "outbound.h"
#include "plane.h"
#include "requests.h"

static struct plane plane;
static uint8_t reply[WIRE_MESSAGE_MAX];
static volatile unsigned touched;
static int send_error; /* what the kernel answers to the next sending; 0: it takes all */

int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags);

static void require(bool kept) {
    if (!kept) {
        abort();
    }
}

/* Every message is read through, as the kernel would. */
int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
    (void)fd;
    (void)flags;
    require(count > 0);
    if (send_error != 0) {
        errno = send_error;
        send_error = 0;
        return -1;
    }
    for (unsigned i = 0; i < count; i++) {
        const struct msghdr *header = &messages[i].msg_hdr;
        const uint8_t *bytes = header->msg_iov[0].iov_base;
        require(header->msg_iovlen == 1 && header->msg_iov[0].iov_len <= DATAGRAM_MAX);
        for (size_t at = 0; at < header->msg_iov[0].iov_len; at++) {
            touched += bytes[at];
        }
    }
    return (int)count;
}

/* With workers that never start: an input is all that moves. */
static void plane_open(void) {
    static const struct crew_kind outbound = {0, outbound_turn, outbound_new, outbound_free};
    static const struct crew_kind inbound = {1, inbound_turn, inbound_new, inbound_free};
    plane.started_at_ns = boottime_ns();
    atomic_store(&plane.offloads.wanted, OFFLOAD_ALL);
    plane.aead = aead_choose(NULL);
    pthread_rwlock_init(&plane.tables, NULL);
    plane.networks = networks_new();
    plane.macs = mac_table_new(MAC_LIMIT_DEFAULT, MAC_AGE_DEFAULT_S);
    plane.gate = gate_new();
    plane.sender = sender_new(&plane);
    plane.ways = calloc(1, sizeof(*plane.ways));
    require(plane.aead != NULL && plane.networks != NULL && plane.macs != NULL);
    require(plane.gate != NULL && plane.sender != NULL && plane.ways != NULL);
    require(peers_open(&plane.peers) == 0 && events_open(&plane.events) == 0);
    require(memory_open(&plane.memory, -1, plane.started_at_ns) == 0);
    plane.counters_fd = counters_open(&plane.counters, -1, 2, plane.started_at_ns);
    require(plane.counters_fd >= 0);
    require(crew_open(&plane.outbound, &plane, &outbound) == 0);
    require(crew_open(&plane.inbound, &plane, &inbound) == 0);
}

/* A request of a daemon that was greeted; its reply is in `reply`. */
static enum wire_error ask(uint16_t type, const void *body, size_t size, size_t *reply_size) {
    struct request request = {.plane = &plane,
                              .body = body,
                              .length = size,
                              .reply = reply,
                              .is_greeted = true,
                              .now_ns = boottime_ns()};
    enum wire_error error = request_handle(&request, type);
    if (reply_size != NULL) {
        *reply_size = request.reply_length;
    }
    return error;
}

/* Removes every peer with its sessions, every event and every learned address. */
static void plane_clear(void) {
    struct set_options_request options = {MAC_LIMIT_DEFAULT, MAC_AGE_DEFAULT_S, OFFLOAD_ALL, 0};
    struct destination from;
    send_error = 0;
    while (plane.peers.count > 0) {
        struct peer_request gone = {plane.peers.list[0]->number, 0};
        require(ask(WIRE_REMOVE_PEER, &gone, sizeof(gone), NULL) == 0);
    }
    require(plane.sessions.count == 0 && plane.memory.free_count == plane.memory.head->high_water);
    require(atomic_load(&plane.probations) == 0 && atomic_load(&plane.staged_bytes) == 0);
    require(ask(WIRE_SET_OPTIONS, &options, sizeof(options), NULL) == 0);
    while (events_take(&plane, reply, &from) > 0) {
    }
    plane.stopping = plane.forgets = false;
}

#endif
