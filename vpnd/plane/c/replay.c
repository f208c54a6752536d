#include "replay.h"

#include <stdatomic.h>

#define WORD_BITS 64u

/* The early look runs beside an accepting thread, so what it reads is written atomically. Words are
 * cleared before the top that lets a reader see them: a new counter never meets an old mark. */

static uint64_t word_of(const struct replay_window *window, uint64_t counter) {
    return __atomic_load_n(&window->words[counter / WORD_BITS % REPLAY_WORDS], __ATOMIC_RELAXED);
}

static bool is_marked(const struct replay_window *window, uint64_t counter) {
    return (word_of(window, counter) >> counter % WORD_BITS & 1u) != 0;
}

static void mark(struct replay_window *window, uint64_t counter, uint64_t bits) {
    __atomic_store_n(&window->words[counter / WORD_BITS % REPLAY_WORDS],
                     word_of(window, counter) | bits, __ATOMIC_RELAXED);
}

static bool is_in_reach(uint64_t top, uint64_t counter) {
    return counter < REPLAY_COUNTER_LIMIT && counter + 1 + REPLAY_USABLE >= top;
}

/* Moves the top to `top`. The words entered on the way still hold the ring's former turn. The
 * process may be killed at any of the steps, so what is begun is written down first. */
static void advance(struct replay_window *window, uint64_t top) {
    uint64_t newest = window->top == 0 ? 0 : (window->top - 1) / WORD_BITS;
    uint64_t entered = (top - 1) / WORD_BITS - newest;
    if (entered > REPLAY_WORDS) {
        entered = REPLAY_WORDS;
    }
    __atomic_store_n(&window->next_top, top, __ATOMIC_RELAXED);
    atomic_signal_fence(memory_order_release);
    for (uint64_t step = 1; step <= entered; step++) {
        __atomic_store_n(&window->words[(newest + step) % REPLAY_WORDS], 0, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&window->top, top, __ATOMIC_RELEASE);
}

bool replay_is_new(const struct replay_window *window, uint64_t counter) {
    uint64_t top = __atomic_load_n(&window->top, __ATOMIC_ACQUIRE);
    return is_in_reach(top, counter) && (counter >= top || !is_marked(window, counter));
}

bool replay_accept(struct replay_window *window, uint64_t counter) {
    if (!is_in_reach(window->top, counter)) {
        return false;
    }
    if (counter >= window->top) {
        advance(window, counter + 1);
    } else if (is_marked(window, counter)) {
        return false;
    }
    mark(window, counter, UINT64_C(1) << counter % WORD_BITS);
    return true;
}

/* Bits first..first+count-1 of one word. */
static uint64_t bit_run(unsigned first, unsigned count) {
    uint64_t ones = count == WORD_BITS ? UINT64_MAX : (UINT64_C(1) << count) - 1;
    return ones << first;
}

bool replay_accept_run(struct replay_window *window, uint64_t first, unsigned count) {
    if (count == 0 || count > REPLAY_USABLE || first < window->top ||
        first >= REPLAY_COUNTER_LIMIT || count > REPLAY_COUNTER_LIMIT - first) {
        return false;
    }
    advance(window, first + count);
    while (count > 0) {
        unsigned bit = (unsigned)(first % WORD_BITS);
        unsigned here = count < WORD_BITS - bit ? count : WORD_BITS - bit;
        mark(window, first, bit_run(bit, here));
        first += here;
        count -= here;
    }
    return true;
}

void replay_resume(struct replay_window *window) {
    if (window->next_top > window->top && window->next_top <= REPLAY_COUNTER_LIMIT) {
        advance(window, window->next_top);
    }
}
