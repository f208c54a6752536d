#include "path.h"

#include "clock.h"

#define PROBATION_NS       (3 * NS_PER_SECOND)
#define LEFT_NS            (3 * NS_PER_SECOND)
#define CHALLENGE_AGAIN_NS NS_PER_SECOND
#define ANSWER_AGAIN_NS    (NS_PER_SECOND - NS_PER_SECOND / 10) /* timers of two machines differ */
#define BUDGET_MIN         (16u << 10)
#define BUDGET_FACTOR      3u
#define BUDGET_KEPT        256u /* for challenges and answers to the peer's */

void path_set_valid(struct path *path, const struct destination *to) {
    path->now = *to;
    path->validated = *to;
    path->on_probation = false;
}

void path_leave(struct path *path, const struct wire_endpoint *to, uint64_t now_ns) {
    if (path->now.to.family != 0 && !endpoint_equal(&path->now.to, to)) {
        path->left = path->now.to;
        path->left_at_ns = now_ns;
    }
}

static bool is_left(const struct path *path, const struct wire_endpoint *from, uint64_t now_ns) {
    return endpoint_equal(&path->left, from) && elapsed_ns(path->left_at_ns, now_ns) < LEFT_NS;
}

enum path_change path_arrived(struct path *path, const struct destination *from, size_t size,
                              const uint8_t token[PATH_TOKEN_SIZE], uint64_t now_ns) {
    if (endpoint_equal(&path->now.to, &from->to)) {
        path->now.from = from->from;
        path->left = (struct wire_endpoint){0};
        if (path->on_probation) {
            path->received += size;
        } else {
            path->validated.from = from->from;
        }
        return PATH_SAME;
    }
    if (endpoint_equal(&path->validated.to, &from->to)) {
        path_set_valid(path, from);
        return PATH_RETURNED;
    }
    if (is_left(path, &from->to, now_ns)) {
        return PATH_SAME;
    }
    path->now = *from;
    /* One that hops from address to address gets no new budget and no new time by hopping. */
    if (!path->on_probation) {
        path->on_probation = true;
        path->probation_since_ns = now_ns;
        path->received = 0;
        path->sent = 0;
    }
    path->received += size;
    path->challenged_at_ns = now_ns;
    memcpy(path->token, token, PATH_TOKEN_SIZE);
    return PATH_MOVED;
}

bool path_may_send(struct path *path, size_t size, bool is_proof) {
    if (!path->on_probation) {
        return true;
    }
    uint64_t budget = BUDGET_FACTOR * path->received;
    if (budget < BUDGET_MIN) {
        budget = BUDGET_MIN;
    }
    if (!is_proof) {
        budget -= BUDGET_KEPT;
    }
    if (path->sent + size > budget) {
        return false;
    }
    path->sent += size;
    return true;
}

bool path_answered(struct path *path, const uint8_t token[PATH_TOKEN_SIZE]) {
    if (!path->on_probation || memcmp(path->token, token, PATH_TOKEN_SIZE) != 0) {
        return false;
    }
    path->on_probation = false;
    path->validated = path->now;
    return true;
}

bool path_may_answer(struct path *path, const struct wire_endpoint *from, uint64_t now_ns) {
    if (endpoint_equal(&path->answered, from) &&
        elapsed_ns(path->answered_at_ns, now_ns) < ANSWER_AGAIN_NS) {
        return false;
    }
    path->answered = *from;
    path->answered_at_ns = now_ns;
    return true;
}

enum path_task path_tick(struct path *path, uint64_t now_ns) {
    if (!path->on_probation) {
        return PATH_NOTHING;
    }
    if (elapsed_ns(path->probation_since_ns, now_ns) >= PROBATION_NS) {
        path->on_probation = false;
        path->now = path->validated;
        return PATH_FAILED;
    }
    if (elapsed_ns(path->challenged_at_ns, now_ns) >= CHALLENGE_AGAIN_NS) {
        path->challenged_at_ns = now_ns;
        return PATH_CHALLENGE;
    }
    return PATH_NOTHING;
}
