/* Answers to undeliverable packets: whatever comes in, the answer is an IP packet of its own
 * length within bounds, quotes the input, and is not answered itself. The input is exactly as
 * long as its buffer, so that a step beyond it is seen by AddressSanitizer. */
#include "icmp.h"
#include "packet.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool kept) {
    if (!kept) {
        abort();
    }
}

/* What is too big for a path is quoted as it is, and told an MTU below its size. */
static void try_too_big(const uint8_t *packet, size_t size) {
    uint8_t answer[ICMP_ANSWER_MAX];
    uint8_t framed[ICMP_FRAME_MAX];
    uint32_t mtu = size < 4 ? 0 : packet[1] | (uint32_t)packet[3] << 8;
    size_t length = icmp_too_big(packet, size, mtu, answer);
    require(length == 0 || packet_ip_length(answer, length) == length);
    if (length != 0) {
        size_t quote = answer[0] >> 4 == 4 ? 28 : 48;
        require(size > mtu && length - quote <= size);
        require(memcmp(answer + quote, packet, length - quote) == 0);
    }
    length = icmp_frame_too_big(packet, size, mtu, framed);
    require(length <= ICMP_FRAME_MAX);
    require(length == 0 || memcmp(framed, packet + 6, 6) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *packet = malloc(size == 0 ? 1 : size);
    uint8_t answer[ICMP_ANSWER_MAX];
    uint8_t again[ICMP_ANSWER_MAX];
    uint8_t hops;
    require(packet != NULL);
    memcpy(packet, data, size);
    (void)packet_is_udp_with(packet, size, 0x0c, &hops);
    try_too_big(packet, size);
    size_t length = icmp_unreachable(packet, size, answer);
    require(length <= ICMP_ANSWER_MAX &&
            (length == 0 || packet_ip_length(answer, length) == length));
    if (length != 0) {
        size_t quote = answer[0] >> 4 == 4 ? 28 : 48;
        require(length > quote && length - quote <= size);
        require(memcmp(answer + quote, packet, length - quote) == 0);
        require(icmp_unreachable(answer, length, again) == 0);
    }
    free(packet);
    return 0;
}
