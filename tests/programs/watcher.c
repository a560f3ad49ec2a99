/* watcher STEPS: threads that sit in every interruptible call and count an EINTR or a short count as wrong: a program
 * without signal handlers of its own never sees either. */
#include "judge.h"
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define BIG (1 << 20)
static volatile int over;
static int silent[2], stream[2], big_pipe[2], packets[2];
static long calls[16];

#define FOREVER(slot, call_is_right)                                                                                   \
    while (!over) {                                                                                                    \
        errno = 0;                                                                                                     \
        if (!(call_is_right)) WRONG("%s", #call_is_right);                                                             \
        calls[slot]++;                                                                                                 \
    }

static struct timespec in_ms(long ms) { return (struct timespec){ms / 1000, ms % 1000 * 1000000}; }

static void *in_poll(void *argument) {
    struct pollfd wait = {.fd = silent[0], .events = POLLIN};
    FOREVER(0, poll(&wait, 1, 30) == 0);
    return argument;
}
static void *in_select(void *argument) {
    while (!over) {
        fd_set set;
        FD_ZERO(&set);
        FD_SET(silent[0], &set);
        struct timeval limit = {0, 30000};
        MUST(select(silent[0] + 1, &set, NULL, NULL, &limit) == 0);
        calls[1]++;
    }
    return argument;
}
static void *in_epoll(void *argument) {
    int queue = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN}, got;
    MUST(epoll_ctl(queue, EPOLL_CTL_ADD, silent[0], &event) == 0);
    FOREVER(2, epoll_wait(queue, &got, 1, 30) == 0);
    return argument;
}
static void *in_nanosleep(void *argument) {
    while (!over) {
        struct timespec want = in_ms(30);
        double begun = now_s();
        MUST(nanosleep(&want, NULL) == 0);
        MUST(now_s() - begun >= 0.0299);
        calls[3]++;
    }
    return argument;
}
static void *in_clock_nanosleep(void *argument) {
    while (!over) {
        struct timespec at;
        clock_gettime(CLOCK_MONOTONIC, &at);
        at.tv_nsec += 30000000;
        if (at.tv_nsec >= 1000000000) at.tv_sec++, at.tv_nsec -= 1000000000;
        MUST(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == 0);
        calls[4]++;
    }
    return argument;
}
static void *in_sigtimedwait(void *argument) {
    sigset_t set;
    struct timespec limit = in_ms(30);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    FOREVER(5, sigtimedwait(&set, NULL, &limit) == -1 && errno == EAGAIN);
    return argument;
}
static void *in_semaphore(void *argument) {
    sem_t semaphore;
    sem_init(&semaphore, 0, 0);
    while (!over) {
        struct timespec at;
        clock_gettime(CLOCK_REALTIME, &at);
        at.tv_nsec += 30000000;
        if (at.tv_nsec >= 1000000000) at.tv_sec++, at.tv_nsec -= 1000000000;
        MUST(sem_timedwait(&semaphore, &at) == -1 && errno == ETIMEDOUT);
        calls[6]++;
    }
    return argument;
}
static void *in_receive_timeout(void *argument) {
    struct timeval limit = {0, 30000};
    char byte;
    setsockopt(packets[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    FOREVER(7, recv(packets[0], &byte, 1, 0) == -1 && errno == EAGAIN);
    return argument;
}
/* Writes more than the pipe holds in one call: it must all go in one. */
static void *in_big_write(void *argument) {
    char *bytes = malloc(BIG);
    memset(bytes, 'w', BIG);
    FOREVER(8, write(big_pipe[1], bytes, BIG) == BIG);
    close(big_pipe[1]);
    return argument;
}
static void *in_slow_read(void *argument) {
    static char bytes[5000];
    ssize_t n;
    while ((n = read(big_pipe[0], bytes, sizeof bytes)) > 0) {
        MUST(bytes[0] == 'w' && bytes[n - 1] == 'w');
        if (calls[9]++ % 16 == 0) usleep(1000);
    }
    return argument;
}
static void *in_big_send(void *argument) {
    char *bytes = malloc(BIG);
    memset(bytes, 's', BIG);
    FOREVER(10, send(stream[0], bytes, BIG, 0) == BIG);
    shutdown(stream[0], SHUT_WR);
    return argument;
}
static void *in_wait_all(void *argument) {
    char *bytes = malloc(BIG);
    for (ssize_t n; (n = recv(stream[1], bytes, BIG, MSG_WAITALL)) != 0; calls[11]++) {
        MUST(n == BIG && bytes[BIG - 1] == 's');
        usleep(2000);
    }
    return argument;
}
static void *in_message_queue(void *argument) {
    int queue = msgget(IPC_PRIVATE, IPC_CREAT | 0600), set = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);
    struct sembuf down = {.sem_op = -1};
    struct timespec limit = in_ms(30);
    struct {
        long type;
        char text[8];
    } message = {.type = 1, .text = "x"};
    MUST(queue >= 0 && set >= 0);
    while (!over) {
        MUST(semtimedop(set, &down, 1, &limit) == -1 && errno == EAGAIN);
        MUST(msgsnd(queue, &message, 8, 0) == 0 && msgrcv(queue, &message, 8, 1, 0) == 8);
        calls[12]++;
    }
    MUST(msgctl(queue, IPC_RMID, NULL) == 0 && semctl(set, 0, IPC_RMID) == 0);
    return argument;
}
/* Nobody handles SIGCHLD: that a child ends is nothing to the other threads. */
static void *in_wait(void *argument) {
    int status;
    FOREVER(13, (fork() ?: (usleep(500), _exit(3), 0)) > 0 && wait(&status) > 0 && WEXITSTATUS(status) == 3);
    return argument;
}

int main(int argc, char **argv) {
    void *(*kinds[])(void *) = {in_poll,      in_select,          in_epoll,     in_nanosleep, in_clock_nanosleep, in_sigtimedwait, in_semaphore,
                                in_receive_timeout, in_big_write, in_slow_read, in_big_send,  in_wait_all,        in_message_queue, in_wait};
    enum { KINDS = sizeof kinds / sizeof *kinds };
    long steps = argument(argc, argv, 1, 150);
    uint64_t hash = 17;
    pthread_t threads[KINDS];
    MUST(pipe(silent) == 0 && pipe(big_pipe) == 0);
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, packets) == 0);
    for (int i = 0; i < KINDS; i++) MUST(pthread_create(&threads[i], NULL, kinds[i], NULL) == 0);
    for (long k = 1; k <= steps; k++) {
        hash = work(hash, 1000);
        MUST(usleep(10000) == 0);
        step(k, hash);
    }
    over = 1;
    for (int i = 0; i < KINDS; i++) MUST(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < KINDS; i++) MUST(calls[i] > 0);
    result(hash);
    return 0;
}
