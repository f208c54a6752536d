/* Inner packets and frames: any bytes give a length within them, and every place a function
 * names can be read. The buffer is exactly as long as the input, so that a step beyond it is
 * seen by AddressSanitizer. */
#include "packet.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned touched;

static void touch(const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) {
        touched += bytes[i];
    }
}

static void require(bool kept) {
    if (!kept) {
        abort();
    }
}

static void try_packet(uint8_t *packet, size_t size) {
    size_t length = packet_ip_length(packet, size);
    require(length <= size);
    require((length == 0) == (packet_kind_of(packet, size) == PACKET_BAD));
    uint16_t start = 0;
    uint16_t offset = 0;
    if (packet_checksum_place(packet, size, &start, &offset)) {
        require(length != 0 && (size_t)start + offset + 2 <= length);
        require(packet_complete_checksum(packet, length, start, offset));
    }
    if (length != 0) {
        uint8_t family = 0;
        touch(packet_source(packet, &family), family == 4 ? 4 : 16);
        touch(packet_destination(packet, &family), family == 4 ? 4 : 16);
        require(family == 4 || family == 6);
    }
}

static void try_frame(const uint8_t *frame, size_t size) {
    uint16_t ether_type = 0;
    size_t at = frame_payload(frame, size, &ether_type);
    require(at == 0 || (at >= FRAME_HEADER_SIZE && at <= size));
    require(frame_vlan(frame, size) < 4096);
    if (size >= FRAME_HEADER_SIZE) {
        touch(frame_destination(frame), 6);
        touch(frame_source(frame), 6);
    }
}

static void try_padding(const uint8_t *data, size_t size) {
    size_t mtu = size < 2 ? 0 : (size_t)data[0] << 8 | data[1];
    for (enum padding_mode mode = PADDING_NONE; mode <= PADDING_FULL; mode++) {
        size_t padded = padded_length(size, mode, mtu);
        require(padded >= size && padded <= (size > mtu ? size : mtu));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size == 0 ? 1 : size);
    require(copy != NULL);
    memcpy(copy, data, size);
    try_frame(copy, size);
    try_padding(copy, size);
    try_packet(copy, size);
    if (size > 4) {
        /* Field and start from the input itself: both may lie anywhere. */
        packet_complete_checksum(copy, size, copy[0] | (size_t)copy[1] << 8,
                                 copy[2] | (size_t)copy[3] << 8);
    }
    free(copy);
    return 0;
}
