/* Control messages inside sessions.
 *
 * Owns what is answered without vpnd: pings, probes and path challenges, so that a peer sees a
 * living end and the same path while vpnd restarts. Everything else goes up.
 */
#ifndef VPND_CONTROL_H
#define VPND_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sender.h"
#include "udp.h"

struct peer;
struct plane;
struct session;

#define CONTROL_NIBBLE         0x20u /* the high nibble of every control message's first byte */
#define CONTROL_PROBE          0x21u
#define CONTROL_PROBE_ACK      0x22u
#define CONTROL_PATH_CHALLENGE 0x23u
#define CONTROL_PATH_RESPONSE  0x24u
#define CONTROL_PING           0x27u
#define CONTROL_PONG           0x28u

/* Does the message prove an address, and may therefore use what a probation's budget keeps? */
bool control_is_proof(const uint8_t *bytes, size_t size);

/* Handles an authentic control message of at least 1 byte. Holds no lock but tables. */
void control_receive(struct plane *plane, struct sender *sender, struct session *session,
                     const struct reception *reception, const uint8_t *bytes, size_t size,
                     uint64_t now_ns);

#endif
