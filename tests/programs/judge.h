/* What every program under test shares: it judges itself.
 * "step K HASH" lines as it goes (after that of step SLACKWATER_HOLD it waits for the file go-on: a test that is slow has its
 * checkpoints all the same), "RESULT HASH" at the end, "WRONG …" and exit code 1 when anything is not as it must be. */
#ifndef JUDGE_H
#define JUDGE_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WRONG(...)                                                                                                     \
    do {                                                                                                               \
        printf("WRONG %s:%d: ", __FILE__, __LINE__);                                                                   \
        printf(__VA_ARGS__);                                                                                           \
        printf(" (errno %d: %s)\n", errno, strerror(errno));                                                           \
        fflush(stdout);                                                                                                \
        _exit(1);                                                                                                      \
    } while (0)
#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) WRONG("%s", #condition);                                                                     \
    } while (0)

static inline uint64_t mix(uint64_t x) {
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 29;
    x *= 0xc4ceb9fe1a85ec53ULL;
    return x ^ (x >> 32);
}

static inline double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static inline void step(long k, uint64_t hash) {
    printf("step %ld %016lx\n", k, (unsigned long)hash);
    fflush(stdout);
    const char *hold = getenv("SLACKWATER_HOLD");
    while (hold && k == atol(hold) && access("go-on", F_OK) != 0) usleep(10000);
}

static inline void result(uint64_t hash) {
    printf("RESULT %016lx\n", (unsigned long)hash);
    fflush(stdout);
}

/* Something to do between two steps that is neither a system call nor the same for every step. */
static inline uint64_t work(uint64_t seed, long rounds) {
    double x = 1.0 + (seed & 1023);
    for (long i = 0; i < rounds; i++) {
        seed = mix(seed + i);
        x = x * 0.999 + (double)(seed & 7);
    }
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return mix(seed ^ bits);
}

static inline long argument(int argc, char **argv, int at, long otherwise) {
    return argc > at ? atol(argv[at]) : otherwise;
}
#endif
