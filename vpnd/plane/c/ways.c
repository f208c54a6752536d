#include "ways.h"

#include "bytes.h"

static struct destination *way_of(struct ways *ways, const struct wire_endpoint *endpoint) {
    uint64_t hash = ways->seed;
    for (size_t i = 0; i < sizeof(*endpoint); i += 8) {
        hash = (hash ^ load_le64((const uint8_t *)endpoint + i)) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    return &ways->list[hash % WAYS_COUNT];
}

void ways_remember(struct ways *ways, const struct destination *from) {
    *way_of(ways, &from->to) = *from;
}

struct destination way_to(struct ways *ways, const struct wire_endpoint *endpoint) {
    const struct destination *known = way_of(ways, endpoint);
    if (endpoint_equal(&known->to, endpoint)) {
        return *known;
    }
    return (struct destination){.to = *endpoint};
}
