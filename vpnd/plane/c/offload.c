#include "offload.h"

static unsigned place_of(enum wire_offload offload) {
    switch (offload) {
    case OFFLOAD_UDP_GSO:
        return 0;
    case OFFLOAD_UDP_GRO:
        return 1;
    default:
        return 2;
    }
}

bool offload_runs(const struct offloads *offloads, enum wire_offload offload) {
    return (atomic_load_explicit(&offloads->active, memory_order_relaxed) & offload) != 0;
}

bool offload_is_wanted(const struct offloads *offloads, enum wire_offload offload) {
    return (atomic_load_explicit(&offloads->wanted, memory_order_relaxed) & offload) != 0;
}

void offload_tried(struct offloads *offloads, enum wire_offload offload, int error) {
    atomic_store(&offloads->errors[place_of(offload)], error);
    if (error == 0) {
        atomic_fetch_or(&offloads->active, (unsigned)offload);
    } else {
        atomic_fetch_and(&offloads->active, ~(unsigned)offload);
    }
}

void offload_clear(struct offloads *offloads, enum wire_offload offload) {
    atomic_store(&offloads->errors[place_of(offload)], 0);
    atomic_fetch_and(&offloads->active, ~(unsigned)offload);
}
