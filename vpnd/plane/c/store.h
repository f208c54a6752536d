/* What a later process finds again besides the sessions: link, sockets, options, counters, peers.
 *
 * Owns the memory that says what is kept (keep.h), and the order in which both are written:
 * whenever the process ends, what stands there is true or is seen to be doubtful, and then vpnd
 * gives it anew. Without a service manager it does nothing. Knows nothing of how sessions are kept
 * (memory.h) nor of peers (roster.h).
 */
#ifndef VPND_STORE_H
#define VPND_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "roster.h"
#include "wire.h"

struct plane;

/* Describes the stored descriptors. A serial is part of their names: those of a link or of sockets
 * that were replaced are told from the present ones. */
struct stored_ports {
    uint64_t sum; /* of all that follows */
    uint8_t link_type;
    uint8_t zero[3];
    uint32_t queues;
    uint32_t mtu;
    uint32_t padding_mtu;
    char link_name[WIRE_NAME_SIZE];
    uint32_t link_serial;
    uint32_t sockets_serial;
    uint32_t sockets;
    uint32_t workers;
    uint32_t mac_limit; /* 0: no options were set */
    uint32_t mac_age_s;
    uint32_t offloads;
    uint32_t zero2;
    struct wire_endpoint bound[WIRE_SOCKETS_MAX];
};

_Static_assert(sizeof(struct stored_ports) == 72 + 64 * 24, "stored_ports");

/* Which of two places counts: 0 for none. Written last, so that a process which ends in the middle
 * leaves the former content. */
struct store_head {
    uint32_t magic;
    uint32_t layout;
    uint64_t layout_sum;
    uint32_t starts; /* of processes that took it and did not get to work */
    uint32_t ports_place;
    uint32_t roster_place;
    uint32_t zero;
    struct stored_ports ports[2];
};

/* Owned by the main thread. */
struct store {
    int fd;
    struct store_head *head; /* NULL: there is no service manager */
    struct stored_ports ports;
    bool is_roster_due;
    uint64_t roster_at_ns;   /* when it was written last */
    uint64_t roster_cost_ns; /* and the processor time that took */
};

/* Takes a former process's memories from the service manager where they can be trusted, else makes
 * new ones: sessions, counters and the store's own. 0 or -errno. */
int store_open(struct plane *plane, uint64_t now_ns);

/* Takes link, sockets, options, peers and sessions back as far as they can be trusted, and says so.
 * Workers are open and not started. */
void store_take_back(struct plane *plane, uint64_t now_ns);

/* The plane works: what it took back did it no harm. */
void store_settle(struct plane *plane);

/* After a change of the link, of the sockets, of the options. */
void store_link(struct plane *plane, bool has_new_queues);
void store_sockets(struct plane *plane);
void store_options(struct plane *plane, const struct set_options_request *options);

/* After a change of peers and networks, of which the stored form must not be used any more; after
 * one that only makes it older. */
void store_peers_changed(struct plane *plane);
void store_peers_moved(struct plane *plane);

/* Writes peers down if they changed and it is time. */
void store_tend(struct plane *plane, uint64_t now_ns);

/* Leaves everything for a later process, or wipes and forgets it. */
void store_close(struct plane *plane, bool forgets);

#endif
