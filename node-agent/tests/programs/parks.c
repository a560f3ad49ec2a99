// A job's process with a parking handler as the preload library has it, as small as it can be. Standard input is the
// control segment; the file named first holds counters: [0] main, [1].. what else runs, [20] flags from the test.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PARK 33
#define MUST(it) do { if (!(it)) _exit(99); } while (0)

static char *segment;
static volatile uint64_t *counters;
#define WORD(at) (*(uint32_t volatile *)(at))
#define LOAD(at) __atomic_load_n((uint32_t *)(at), __ATOMIC_ACQUIRE)
#define STORE(at, value) __atomic_store_n((uint32_t *)(at), value, __ATOMIC_RELEASE)
#define ADD(at, value) __atomic_add_fetch((uint32_t *)(at), value, __ATOMIC_ACQ_REL)

static void wake(char *at) { syscall(SYS_futex, at, FUTEX_WAKE, 0x7fffffff, 0, 0, 0); }
static void wait_while(char *at, uint32_t value) { syscall(SYS_futex, at, FUTEX_WAIT, value, 0, 0, 0); }

static char *find(uint32_t tid) {
    for (uint32_t probe = 0; probe < PROBES; probe++) {
        char *slot = segment + SLOTS_AT + (size_t)((tid * 0x9E3779B1u + probe) & (SLOTS - 1)) * SLOT_BYTES;
        if (LOAD(slot) == tid) return slot;
    }
    return 0;
}

static int64_t twin(uint32_t epoch) {
    long pid = syscall(SYS_clone, 0x8000, 0, 0, 0, 0);
    if (pid == 0) {
        for (;;) {
            uint32_t gone = LOAD(segment + TWINS_GONE_AT);
            if (gone >= epoch) syscall(SYS_exit_group, 0);
            wait_while(segment + TWINS_GONE_AT, gone);
        }
    }
    return pid < 0 ? -errno : pid;
}

// Waiting signals are written down and queued again.
static void pending(char *slot) {
    uint64_t all = ~0ull, mine = *(uint64_t *)(slot + ARGUMENT_AT);
    struct timespec none = {0, 0};
    uint64_t seen[16] = {0};
    uint32_t count[2] = {0, 0};
    long signal;
    while ((signal = syscall(SYS_rt_sigtimedwait, &all, seen, &none, 8)) > 0) {
        int which = !(mine >> (signal - 1) & 1);
        char *list = slot + (which ? PENDING_PROCESS_AT : PENDING_THREAD_AT);
        memcpy(list + 128 * count[which]++, seen, 128);
    }
    for (int which = 0; which < 2; which++) {
        char *list = slot + (which ? PENDING_PROCESS_AT : PENDING_THREAD_AT);
        for (uint32_t at = 0; at < count[which]; at++) {
            char *information = list + 128 * at;
            if (which) syscall(SYS_rt_sigqueueinfo, getpid(), *(int *)information, information);
            else syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), *(int *)information, information);
        }
        STORE(slot + PENDING_LEN_AT + 4 * which, count[which]);
    }
}

static void facts(char *slot) {
    *(uint64_t *)(slot + FACTS_AT) = (uint64_t)segment;
    uint64_t count = *(uint64_t *)(slot + TIMERS_LEN_AT);
    for (uint64_t at = 0; at < count && at < 16; at++) {
        uint64_t *timer = (uint64_t *)(slot + TIMERS_AT) + 5 * at;
        syscall(SYS_timer_gettime, timer[0], timer + 1);
    }
}

static void handler(int signal, siginfo_t *information, void *context) {
    (void)signal, (void)information, (void)context;
    int saved = errno;
    uint32_t epoch = LOAD(segment + EPOCH_AT), command;
    char *slot = find(gettid());
    if (!slot || LOAD(slot + STATE_AT) != ASKED || LOAD(slot + SLOT_EPOCH_AT) != epoch || LOAD(segment + GATE_AT) >= epoch) return;
    uint32_t ids[2] = {getpid(), gettid()};
    memcpy(slot + THREAD_AT, ids, 8);
    STORE(slot + STATE_AT, PARKED);
    ADD(segment + PARKED_AT, 1);
    wake(segment + PARKED_AT);
    while ((command = LOAD(slot + COMMAND_AT)) != RESUME && LOAD(segment + GATE_AT) < epoch) {
        if (command == 0) {
            wait_while(slot + COMMAND_AT, 0);
            continue;
        }
        int64_t result = 0;
        if (command == FACTS) facts(slot);
        if (command == PENDING) pending(slot);
        if (command == TWIN) result = twin(epoch);
        *(int64_t volatile *)(slot + RESULT_AT) = result;
        __atomic_compare_exchange_n((uint32_t *)(slot + COMMAND_AT), &command, 0, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
        ADD(segment + ACKS_AT, 1);
        wake(segment + ACKS_AT);
    }
    ADD(segment + PARKED_AT, -1);
    STORE(slot + STATE_AT, LEFT);
    errno = saved;
}

static void mask(int how) {
    uint64_t set = 1ull << (PARK - 1);
    syscall(SYS_rt_sigprocmask, how, &set, 0, 8);
}

extern void back(void);
__asm__("back: mov $15, %eax; syscall");

static void install(void) {
    struct { void *handler; uint64_t flags; void *restorer; uint64_t mask; } action =
        {handler, SA_SIGINFO | SA_RESTART | 0x04000000, back, ~0ull};
    MUST(syscall(SYS_rt_sigaction, PARK, &action, 0, 8) == 0);
    mask(SIG_UNBLOCK);
}

static void *nothing(void *it) { return it; }

static void nap(void) {
    struct timespec time = {0, 200000};
    nanosleep(&time, 0);
}

static void count(int which) {
    for (uint64_t at = 0;; at++) {
        counters[which]++;
        if (at % 1000 == 0 && which != 2) nap();
    }
}

static void *counting(void *which) { count((int)(intptr_t)which); return 0; }

static pthread_t start(void *(*work)(void *), intptr_t argument) {
    pthread_t thread;
    MUST(pthread_create(&thread, 0, work, (void *)argument) == 0);
    return thread;
}

static void five_threads(void) {
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    MUST(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    struct itimerspec hour = {{0, 0}, {3600, 0}};
    MUST(timer_settime(timer, 0, &hour, 0) == 0);
    for (intptr_t at = 1; at < 5; at++) start(counting, at);
    count(0);
}

static void churn(void) {
    for (;; counters[0]++) {
        pthread_t one = start(nothing, 1), other = start(nothing, 2);
        pthread_join(one, 0), pthread_join(other, 0);
    }
}

static void forks(void) {
    for (;; counters[0]++) {
        pid_t child = fork();
        if (child == 0) _exit(3);
        int status;
        while (waitpid(child, &status, 0) < 0) MUST(errno == EINTR);
        MUST(WIFEXITED(status) && WEXITSTATUS(status) == 3);
    }
}

// The way of the library: the signal is held back until the new program's handler is there.
static void execs(char **arguments) {
    for (;; counters[0]++) {
        mask(SIG_BLOCK);
        pid_t child = fork();
        if (child == 0) execl("/proc/self/exe", arguments[0], arguments[1], "quick", (char *)0);
        mask(SIG_UNBLOCK);
        int status;
        while (waitpid(child, &status, 0) < 0) MUST(errno == EINTR);
        MUST(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
}

static void stopped(void) {
    start(counting, 3);
    pid_t child = fork();
    if (child == 0) {
        start(counting, 2);
        count(1);
    }
    count(0);
}

static void leaderless(void) {
    start(counting, 1);
    pthread_exit(0);
}

// Its child goes when the test says so, or when thread 1 has got on.
static void *vforks(void *for_the_other) {
    counters[21] = counters[1];
    pid_t child = vfork();
    if (child == 0) {
        counters[22] = 1;
        while (!counters[20] && !(for_the_other && counters[1] > counters[21] + 300000)) syscall(SYS_sched_yield);
        _exit(0);
    }
    waitpid(child, 0, 0);
    counters[22] = 2;
    count(2);
    return 0;
}

static void runs(char *program) {
    if (fork() == 0) {
        execl(program, program, (char *)0);
        _exit(98);
    }
    count(0);
}

int main(int argc, char **arguments) {
    MUST(argc > 2);
    segment = mmap(0, SEGMENT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, 0, 0);
    int file = open(arguments[1], O_RDWR);
    counters = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    MUST(segment != MAP_FAILED && counters != MAP_FAILED);
    pthread_join(start(nothing, 0), 0); // so that libc's own handler is not put over ours
    install();
    char *mode = arguments[2];
    if (!strcmp(mode, "quick")) return 0;
    if (!strcmp(mode, "threads")) five_threads();
    if (!strcmp(mode, "churn")) churn();
    if (!strcmp(mode, "forks")) forks();
    if (!strcmp(mode, "execs")) execs(arguments);
    if (!strcmp(mode, "stopped")) stopped();
    if (!strcmp(mode, "leaderless")) leaderless();
    if (!strcmp(mode, "runs")) runs(arguments[3]);
    if (!strcmp(mode, "zombie") && fork() == 0) _exit(5);
    if (!strcmp(mode, "vfork") || !strcmp(mode, "vfork-waits")) {
        start(counting, 1);
        start(vforks, mode[5] == '-');
    }
    count(0);
}
