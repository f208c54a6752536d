/* Which peer an Ethernet address was last seen behind, per VLAN, or that it is behind the link.
 *
 * Owns learning, ageing and the limit per peer, static addresses, and its own lock: every function
 * may be called from any thread. Knows no frames. Group and zero addresses are never learned. The
 * hash is seeded, so that a peer cannot choose addresses that collide.
 */
#ifndef VPND_MAC_TABLE_H
#define VPND_MAC_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "wire.h"

#define MAC_NONE UINT32_MAX
#define MAC_LINK COUNTERS_PEER_MAX /* in place of a peer: on our side */

struct mac_table;

enum mac_learned {
    MAC_KNOWN = 0,    /* as before; its age began anew */
    MAC_NEW = 1,      /* learned */
    MAC_MOVED = 2,    /* was behind another peer, is behind this one now */
    MAC_REFUSED = 3,  /* group or zero address, the peer's limit, or no memory: nothing changed */
    MAC_FORBIDDEN = 4 /* another's static address, or the peer has others: nothing changed */
};

/* NULL when memory or randomness ran out. */
struct mac_table *mac_table_new(uint32_t limit_per_peer, uint32_t age_s);
void mac_table_free(struct mac_table *table);

/* A lower limit forgets nothing; it stops learning. */
void mac_table_set_limits(struct mac_table *table, uint32_t limit_per_peer, uint32_t age_s);

/* The peer may use these addresses alone from now on, in every VLAN, and nobody else may; none: any
 * that is nobody's. `macs` are different ones. What was learned otherwise is forgotten. Static
 * addresses do not age, nor count against the limit. 0; -ENOMEM: nothing changed. */
int mac_table_set_static(struct mac_table *table, const struct wire_mac *macs, uint32_t count,
                         uint32_t peer);

/* vlan: 0 for untagged. now_ns: CLOCK_BOOTTIME. A peer beyond MAC_LINK is refused. */
enum mac_learned mac_table_learn(struct mac_table *table, const uint8_t mac[6], uint16_t vlan,
                                 uint32_t peer, uint64_t now_ns);

/* The peer behind the address or MAC_LINK; MAC_NONE if it is unknown or older than the age. */
uint32_t mac_table_find(struct mac_table *table, const uint8_t mac[6], uint16_t vlan,
                        uint64_t now_ns);

/* Forgets what is older than the age. Call it now and then; lookups are right without it, but
 * a peer's outdated addresses count against its limit until it ran. */
void mac_table_age(struct mac_table *table, uint64_t now_ns);

void mac_table_remove_peer(struct mac_table *table, uint32_t peer);

/* Writes up to `max` entries from *cursor (0 to begin) and moves it on; *cursor is 0 again when
 * there are no more. Entries that stay while the pages are read appear exactly once. What is behind
 * the link is not among them. */
size_t mac_table_list(struct mac_table *table, struct listed_mac *out, size_t max,
                      uint32_t *cursor);

#endif
