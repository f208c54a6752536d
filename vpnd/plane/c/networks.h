/* Which peer a network address belongs to: longest prefix wins, IPv4 and IPv6.
 *
 * Owns two path-compressed binary tries and, per peer, the list of its prefixes. Refuses to
 * know what a peer is beyond its number. Not locked: finding is safe beside finding, any
 * change needs the caller's write lock.
 */
#ifndef VPND_NETWORKS_H
#define VPND_NETWORKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

#define NETWORKS_NONE UINT32_MAX

struct networks;

/* NULL when memory ran out. */
struct networks *networks_new(void);
void networks_free(struct networks *networks);

/* Is it a prefix as the wire carries it: family 4 or 6, no bit set beyond the prefix? */
bool network_is_valid(const struct wire_network *network);

/* Room for `count` more networks, so that as many networks_add with peers below
 * COUNTERS_PEER_MAX cannot fail for memory. 0 or -ENOMEM. */
int networks_reserve(struct networks *networks, size_t count);

/* Gives the prefix to the peer, taking it from the peer that had it. 0; -EINVAL for an invalid
 * network or a peer not below COUNTERS_PEER_MAX; -ENOMEM. Only 0 has changed anything. */
int networks_add(struct networks *networks, const struct wire_network *network, uint32_t peer);

/* Takes exactly this prefix from this peer. 0, -ENOENT if the peer does not have it. */
int networks_remove(struct networks *networks, const struct wire_network *network, uint32_t peer);

/* Takes all prefixes of the peer, in time proportional to their number. */
void networks_remove_peer(struct networks *networks, uint32_t peer);

/* The peer of the longest prefix around the address, or NETWORKS_NONE. `address` has 4 bytes
 * for family 4 and 16 for family 6, in network order. */
uint32_t networks_find(const struct networks *networks, uint8_t family, const uint8_t *address);

/* How many prefixes the peer has. */
size_t networks_count(const struct networks *networks, uint32_t peer);

/* Writes up to `max` prefixes of the peer, newest first, and says how many there were to write. */
size_t networks_list(const struct networks *networks, uint32_t peer, struct wire_network *out,
                     size_t max);

#endif
