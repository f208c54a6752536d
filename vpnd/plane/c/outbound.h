/* From the link to the network: what comes out of the link goes to the peer it is for.
 *
 * Owns the choice of peers and the batches of an outbound worker. Knows neither how frames are
 * read (link.h) nor how messages are sealed (sealing.h).
 */
#ifndef VPND_OUTBOUND_H
#define VPND_OUTBOUND_H

#include <stdint.h>

struct plane;
struct worker;

/* The state of an outbound worker, a struct outbound; NULL without memory. */
void *outbound_new(struct plane *plane, unsigned worker);
void outbound_free(void *outbound);

/* Moves what waits at one queue of the link. Holds tables for reading. */
void outbound_turn(struct worker *worker, uint32_t queue);

/* The same by the inbound worker that has the queue (pairing.h). */
void outbound_move(struct plane *plane, unsigned queue);

#endif
