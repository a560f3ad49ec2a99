/* pending STEPS: blocked signals of every origin wait for the process while others wait for its threads, and none is lost.
 */
#include "judge.h"
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define HOLDERS 3
static sigset_t waiting;
static pthread_barrier_t ready, check;

/* Something waits for this thread alone, so it is asked for what waits, and sees what waits for the process, too. */
static void *holder(void *argument) {
    sigset_t have;
    siginfo_t info;
    MUST(pthread_kill(pthread_self(), SIGUSR1) == 0);
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&check);
    MUST(sigpending(&have) == 0 && sigismember(&have, SIGUSR1));
    sigset_t mine;
    sigemptyset(&mine);
    sigaddset(&mine, SIGUSR1);
    MUST(sigwaitinfo(&mine, &info) == SIGUSR1 && info.si_pid == getpid());
    return argument;
}

static void signals_of_the_process(void) {
    MUST(kill(getpid(), SIGUSR2) == 0);
    MUST(sigqueue(getpid(), SIGRTMIN + 4, (union sigval){.sival_int = 815}) == 0);
    pid_t child = fork();
    if (child == 0) _exit(42);
    siginfo_t state;
    MUST(child > 0 && waitid(P_PID, child, &state, WEXITED | WNOWAIT) == 0);
    alarm(1);
    struct timespec until_then = {1, 100000000};
    MUST(nanosleep(&until_then, NULL) == 0);
}

/* A timer that fires all the time, for a signal that nobody takes. */
static timer_t tireless(void) {
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 5};
    struct itimerspec every = {{0, 1000000}, {0, 1000000}};
    MUST(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &every, NULL) == 0);
    return timer;
}

static int take(int signal, siginfo_t *info) {
    sigset_t one;
    struct timespec now = {0, 0};
    sigemptyset(&one);
    sigaddset(&one, signal);
    return sigtimedwait(&one, info, &now) == signal;
}

int main(int argc, char **argv) {
    long steps = argument(argc, argv, 1, 150);
    uint64_t hash = 5;
    pthread_t thread[HOLDERS];
    siginfo_t info;
    for (int signal = SIGRTMIN; signal <= SIGRTMIN + 6; signal++) sigaddset(&waiting, signal);
    int plain[] = {SIGUSR1, SIGUSR2, SIGCHLD, SIGALRM};
    for (unsigned i = 0; i < sizeof plain / sizeof *plain; i++) sigaddset(&waiting, plain[i]);
    MUST(sigprocmask(SIG_BLOCK, &waiting, NULL) == 0);
    pthread_barrier_init(&ready, NULL, HOLDERS + 1), pthread_barrier_init(&check, NULL, HOLDERS + 1);
    for (int i = 0; i < HOLDERS; i++) MUST(pthread_create(&thread[i], NULL, holder, NULL) == 0);
    pthread_barrier_wait(&ready);
    signals_of_the_process();
    timer_t timer = tireless();
    for (long k = 1; k <= steps; k++) {
        sigset_t have;
        MUST(sigpending(&have) == 0);
        MUST(sigismember(&have, SIGUSR2) && sigismember(&have, SIGRTMIN + 4) && sigismember(&have, SIGCHLD) && sigismember(&have, SIGALRM));
        hash = work(hash, 1000);
        usleep(10000);
        step(k, hash);
    }
    pthread_barrier_wait(&check);
    for (int i = 0; i < HOLDERS; i++) MUST(pthread_join(thread[i], NULL) == 0);
    MUST(take(SIGUSR2, &info) && info.si_code == SI_USER && info.si_pid == getpid() && !take(SIGUSR2, &info));
    MUST(take(SIGRTMIN + 4, &info) && info.si_code == SI_QUEUE && info.si_value.sival_int == 815);
    MUST(take(SIGCHLD, &info) && info.si_code == CLD_EXITED && info.si_status == 42);
    MUST(take(SIGALRM, &info) && info.si_code == SI_KERNEL);
    MUST(timer_delete(timer) == 0);
    int fired = 0;
    while (take(SIGRTMIN + 5, &info)) fired++;
    MUST(fired <= 2);
    MUST(wait(NULL) > 0);
    result(hash);
    return 0;
}
