/* The replay window: any sequence of counters and runs, checked against a list of all that were
 * accepted. */
#include "replay.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STEP = 6, ACCEPTED_MAX = 4096 };

static uint64_t accepted[ACCEPTED_MAX];
static size_t accepted_count;

static void require(bool kept) {
    if (!kept) {
        abort();
    }
}

static bool was_accepted(uint64_t counter) {
    for (size_t i = 0; i < accepted_count; i++) {
        if (accepted[i] == counter) {
            return true;
        }
    }
    return false;
}

static void take(struct replay_window *window, uint64_t counter) {
    bool expected = counter < REPLAY_COUNTER_LIMIT && counter + 1 + REPLAY_USABLE >= window->top &&
                    !was_accepted(counter);
    require(replay_is_new(window, counter) == expected);
    require(replay_accept(window, counter) == expected);
    require(!replay_is_new(window, counter));
    if (expected) {
        accepted[accepted_count++] = counter;
    }
}

/* The first byte chooses: a counter near the top, or anywhere, or a run above the top. */
static void step(struct replay_window *window, const uint8_t *data) {
    uint64_t number = load_le32(data + 1);
    int64_t near = (int64_t)(number % (3 * REPLAY_USABLE)) - 2 * (int64_t)REPLAY_USABLE;
    switch (data[0] % 4) {
    case 0:
        take(window, window->top + number % 8);
        break;
    case 1:
        take(window, (uint64_t)((int64_t)window->top + near));
        break;
    case 2:
        take(window, number << (data[5] % 32));
        break;
    default: {
        unsigned count = data[5] % 128u;
        uint64_t first = window->top + number % 256;
        bool taken = replay_accept_run(window, first, count);
        require(taken == (count > 0 && first + count <= REPLAY_COUNTER_LIMIT));
        for (unsigned i = 0; taken && i < count; i++) {
            accepted[accepted_count++] = first + i;
        }
    }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct replay_window window;
    memset(&window, 0, sizeof(window));
    accepted_count = 0;
    for (; size >= STEP && accepted_count + 128 < ACCEPTED_MAX; data += STEP, size -= STEP) {
        step(&window, data);
    }
    return 0;
}
