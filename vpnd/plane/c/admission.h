/* What comes of a handshake message on its way up to vpnd.
 *
 * Owns what is done about the gate's verdict: up, answered by a cookie, or counted. Runs in the
 * main thread, so that a flood costs the data path no more than the reading of it.
 */
#ifndef VPND_ADMISSION_H
#define VPND_ADMISSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct destination;
struct plane;

/* `event` is a datagram event as it would be sent; true: send it. May put a cookie into the main
 * thread's sender. */
bool admission_passes(struct plane *plane, const struct destination *from, const uint8_t *event,
                      size_t size, uint64_t now_ns);

#endif
