/* What is inside an authentic message: an IP packet or Ethernet frame fit for the link, or not.
 *
 * Owns the checks of protocol section 9.1 and of who may send from which inner address, the
 * learning of MAC addresses, and the mark that a congested router left on the outer header. Knows
 * no session and counts nothing.
 */
#ifndef VPND_CONTENT_H
#define VPND_CONTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coalesce.h"
#include "wire.h"

struct peer;
struct plane;

/* The sender that was found right last: packets of a flow follow each other. It holds for one turn
 * of one worker, while the tables cannot change. */
struct known_sender {
    uint32_t peer; /* COUNTERS_PEER_MAX: nobody yet */
    uint8_t family;
    uint16_t vlan;
    uint8_t address[16]; /* of IP, or the MAC address */
};

/* Narrows `arrival` from a plaintext of the peer, which is not empty, to the packet or frame in it.
 * False and *reason if it may not reach the link. `outer` is the byte with DSCP and ECN that the
 * datagram bore. */
bool content_check(struct plane *plane, struct known_sender *known, const struct peer *peer,
                   uint8_t outer, uint64_t now_ns, struct arrival *arrival,
                   enum drop_reason *reason);

#endif
