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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *packet = malloc(size == 0 ? 1 : size);
    uint8_t answer[ICMP_ANSWER_MAX];
    uint8_t again[ICMP_ANSWER_MAX];
    uint8_t hops;
    require(packet != NULL);
    memcpy(packet, data, size);
    (void)packet_is_udp_with(packet, size, 0x0c, &hops);
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
