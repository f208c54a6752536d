/* What vpnd asks for.
 *
 * Owns the check of every request and its effect; a request that is refused has changed nothing.
 * Knows nothing of the socket it came by (connection.h). Runs in the main thread.
 */
#ifndef VPND_REQUESTS_H
#define VPND_REQUESTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

struct peer;
struct plane;

struct request {
    struct plane *plane;
    const uint8_t *body;
    size_t length; /* of the body */
    const int *fds;
    unsigned fd_count;
    bool fds_taken; /* they are the plane's now */
    uint8_t *reply; /* WIRE_MESSAGE_MAX - sizeof(struct wire_header) bytes */
    size_t reply_length;
    bool passes_counters; /* the counters' descriptor goes with the reply */
    bool is_greeted;      /* the connection's first request was a hello */
    bool is_awaited;      /* somebody wants to hear how it ended */
    uint64_t now_ns;
};

/* Does what the request of this type asks. */
enum wire_error request_handle(struct request *request, uint16_t type);

/* For the handlers of requests. */
bool endpoint_is_valid_or_none(const struct wire_endpoint *endpoint);
struct peer *request_peer(const struct request *request, uint32_t number);

#endif
