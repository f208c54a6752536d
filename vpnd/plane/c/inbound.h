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

/* The state of an inbound worker. */
struct inbound;
struct inbound *inbound_new(struct plane *plane);
void inbound_free(struct inbound *inbound);

/* Moves what waits at one socket. Holds tables for reading. */
void inbound_turn(struct worker *worker, uint32_t socket);

#endif
