/* signals STEPS [US]: handlers, masks, pending signals, alternate stack, interval and POSIX timers, job-control dispositions. */
#include "judge.h"
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>

static volatile sig_atomic_t ticks, timer_ticks, on_stack, queued, plain;
static char *stack_low, *stack_high;

static void on_tick(int signal) { (void)signal, ticks++; }
static void on_plain(int signal) { (void)signal, plain++; }
static void on_timer(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    if (info->si_code == SI_TIMER && info->si_value.sival_int == 4711) timer_ticks++;
}
static void on_alternate(int signal) {
    char here;
    (void)signal;
    on_stack += &here >= stack_low && &here < stack_high;
}
static void on_queued(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    queued = queued * 10 + info->si_value.sival_int;
}

static void handle(int signal, void (*handler)(int), void (*informed)(int, siginfo_t *, void *), int flags) {
    struct sigaction action = {.sa_flags = flags | (informed ? SA_SIGINFO : 0)};
    if (informed) action.sa_sigaction = informed;
    else action.sa_handler = handler;
    sigaddset(&action.sa_mask, SIGHUP);
    MUST(sigaction(signal, &action, NULL) == 0);
}

static void set_up(timer_t *timer, long us) {
    size_t size = 64 << 10;
    stack_low = malloc(size), stack_high = stack_low + size;
    stack_t stack = {.ss_sp = stack_low, .ss_size = size};
    MUST(sigaltstack(&stack, NULL) == 0);
    handle(SIGALRM, on_tick, NULL, SA_RESTART);
    handle(SIGUSR1, on_alternate, NULL, SA_ONSTACK | SA_RESTART);
    handle(SIGRTMIN + 3, NULL, on_timer, SA_RESTART);
    handle(SIGRTMIN + 7, NULL, on_queued, SA_RESTART);
    handle(SIGUSR2, on_plain, NULL, 0);
    signal(SIGPIPE, SIG_IGN);
    struct itimerval every = {{0, us}, {0, us}};
    MUST(setitimer(ITIMER_REAL, &every, NULL) == 0);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3, .sigev_value.sival_int = 4711};
    MUST(timer_create(CLOCK_MONOTONIC, &event, timer) == 0);
    struct itimerspec spec = {{0, us * 1700}, {0, us * 1700}};
    MUST(timer_settime(*timer, 0, &spec, NULL) == 0);
}

static void queue_some(void) {
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGRTMIN + 7);
    sigaddset(&held, SIGUSR2);
    MUST(sigprocmask(SIG_BLOCK, &held, NULL) == 0);
    for (int i = 1; i <= 3; i++) {
        union sigval value = {.sival_int = i};
        MUST(sigqueue(getpid(), SIGRTMIN + 7, value) == 0);
    }
    MUST(kill(getpid(), SIGUSR2) == 0);
}

int main(int argc, char **argv) {
    long steps = argument(argc, argv, 1, 120);
    uint64_t hash = 3;
    timer_t timer;
    set_up(&timer, argument(argc, argv, 2, 15000));
    queue_some();
    for (long k = 1; k <= steps; k++) {
        sig_atomic_t before = ticks, timer_before = timer_ticks, stack_before = on_stack;
        double end = now_s() + 5;
        while ((ticks == before || timer_ticks == timer_before) && now_s() < end) hash ^= 0;
        MUST(ticks != before);
        MUST(timer_ticks != timer_before);
        raise(SIGUSR1);
        MUST(on_stack == stack_before + 1);
        sigset_t pending, mask;
        MUST(sigpending(&pending) == 0 && sigismember(&pending, SIGRTMIN + 7) && sigismember(&pending, SIGUSR2));
        MUST(sigprocmask(SIG_BLOCK, NULL, &mask) == 0 && sigismember(&mask, SIGUSR2) && !sigismember(&mask, SIGALRM));
        MUST(queued == 0 && plain == 0);
        struct sigaction have;
        MUST(sigaction(SIGPIPE, NULL, &have) == 0 && have.sa_handler == SIG_IGN);
        MUST(sigaction(SIGUSR1, NULL, &have) == 0 && have.sa_handler == on_alternate && (have.sa_flags & SA_ONSTACK) && sigismember(&have.sa_mask, SIGHUP));
        hash = work(hash, 200);
        step(k, hash);
    }
    sigset_t none;
    sigemptyset(&none);
    MUST(sigprocmask(SIG_SETMASK, &none, NULL) == 0);
    MUST(queued == 123 && plain == 1);
    result(hash);
    return 0;
}
