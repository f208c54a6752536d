/* From the network to the link: sorting, opening, the checks of what was inside.
 *
 * Owns the order of checks of protocol section 5.6 and the count of every refusal. Knows neither
 * how datagrams come (udp.h) nor how frames are written (link.h).
 */
#ifndef VPND_INBOUND_H
#define VPND_INBOUND_H

#include <stdint.h>

struct plane;
struct worker;

/* The state of an inbound worker, a struct inbound; NULL without memory. */
void *inbound_new(struct plane *plane, unsigned worker);
void inbound_free(void *inbound);

/* Moves what waits at one socket, or at the queue of the link that this worker has (pairing.h).
 * Holds tables for reading. */
void inbound_turn(struct worker *worker, uint32_t number);

#endif
