/* timeouts STEPS: a call with a time-out ends by it, however often checkpoints interrupt it. */
#include "judge.h"
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <linux/futex.h>

static int silent[2];
static volatile long rounds[8];

static double pause_s;

/* No more than the time itself once more: a first interruption may not know since when the call has waited. */
static void is_in_time(double begun, const char *what) {
    double took = now_s() - begun;
    if (took < pause_s * 0.99 || took > 2 * pause_s + 1.5) WRONG("%s took %.3f s in place of %.3f", what, took, pause_s);
}

#define AGAIN_AND_AGAIN(slot, what, call)                                                                              \
    for (;; rounds[slot]++) {                                                                                          \
        double begun = now_s();                                                                                        \
        errno = 0;                                                                                                     \
        MUST(call);                                                                                                    \
        is_in_time(begun, what);                                                                                       \
    }

static struct timespec pause_of(void) { return (struct timespec){(time_t)pause_s, (pause_s - (time_t)pause_s) * 1e9}; }

static void *in_poll(void *argument) {
    struct pollfd wait = {.fd = silent[0], .events = POLLIN};
    AGAIN_AND_AGAIN(0, "poll", poll(&wait, 1, pause_s * 1000) == 0);
    return argument;
}
static void *in_epoll(void *argument) {
    int queue = epoll_create1(0);
    struct epoll_event got;
    AGAIN_AND_AGAIN(1, "epoll_wait", epoll_wait(queue, &got, 1, pause_s * 1000) == 0);
    return argument;
}
static void *in_usleep(void *argument) {
    AGAIN_AND_AGAIN(2, "usleep", usleep(pause_s * 1e6) == 0);
    return argument;
}
static void *in_futex(void *argument) {
    static int word;
    struct timespec limit = pause_of();
    AGAIN_AND_AGAIN(3, "futex", syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &limit, NULL, 0) == -1 && errno == ETIMEDOUT);
    return argument;
}
static void *in_sigtimedwait(void *argument) {
    sigset_t set;
    struct timespec limit = pause_of();
    sigemptyset(&set), sigaddset(&set, SIGUSR1);
    AGAIN_AND_AGAIN(4, "sigtimedwait", sigtimedwait(&set, NULL, &limit) == -1 && errno == EAGAIN);
    return argument;
}
static void *in_clock_nanosleep(void *argument) {
    struct timespec limit = pause_of();
    AGAIN_AND_AGAIN(5, "clock_nanosleep", clock_nanosleep(CLOCK_REALTIME, 0, &limit, NULL) == 0);
    return argument;
}

int main(int argc, char **argv) {
    void *(*kinds[])(void *) = {in_poll, in_epoll, in_usleep, in_futex, in_sigtimedwait, in_clock_nanosleep};
    enum { KINDS = sizeof kinds / sizeof *kinds };
    long steps = argument(argc, argv, 1, 150);
    pause_s = argument(argc, argv, 2, 1200) / 1e3;
    uint64_t hash = 23;
    sigset_t set;
    pthread_t thread;
    sigemptyset(&set), sigaddset(&set, SIGUSR1);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL) == 0 && pipe(silent) == 0);
    for (int i = 0; i < KINDS; i++) MUST(pthread_create(&thread, NULL, kinds[i], NULL) == 0);
    for (long k = 1; k <= steps; k++) {
        hash = work(hash, 1000);
        usleep(10000);
        step(k, hash);
    }
    double end = now_s() + 3 * pause_s + 10;
    for (int i = 0; i < KINDS; i++)
        while (rounds[i] == 0) {
            if (now_s() > end) WRONG("time-out %d never came", i);
            usleep(10000);
        }
    result(hash);
    return 0;
}
