/* Clamping: whatever comes in, at most the option's two bytes and the checksum's two change, the
 * announced MSS never grows, and a second clamp finds nothing left to do. The input is exactly as
 * long as its buffer, so that a step beyond it is seen by AddressSanitizer. */
#include "mss.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool kept) {
    if (!kept) {
        abort();
    }
}

/* An IPv4 header before the input leads more of it to the options than chance would. */
static void make_tcp(uint8_t *packet, size_t size) {
    if (size >= 40 && (packet[0] & 1) != 0) {
        packet[0] = 0x45;
        packet[2] = (uint8_t)(size >> 8);
        packet[3] = (uint8_t)size;
        packet[6] = 0;
        packet[7] = 0;
        packet[9] = 6;
        packet[33] |= 2;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *packet = malloc(size == 0 ? 1 : size);
    uint8_t *before = malloc(size == 0 ? 1 : size);
    require(packet != NULL && before != NULL);
    memcpy(packet, data, size);
    make_tcp(packet, size);
    memcpy(before, packet, size);
    size_t mtu = size == 0 ? 0 : (size_t)packet[size - 1] * 8;
    bool is_changed = mss_clamp(packet, size, mtu, false);
    size_t changes = 0;
    for (size_t i = 0; i < size; i++) {
        changes += packet[i] != before[i];
    }
    require(is_changed ? changes > 0 && changes <= 4 : changes == 0);
    require(!mss_clamp(packet, size, mtu, false));
    free(packet);
    free(before);
    return 0;
}
