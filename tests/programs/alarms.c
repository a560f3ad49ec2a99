/* alarms STEPS: children whose reads are ended by a timer's signal without SA_RESTART, the usual way to give a call a
 * time-out: it has to end although the signal came in a checkpoint. */
#include "judge.h"
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

#define CHILDREN 24
static void on_alarm(int signal) { (void)signal; }

static void child(long me, int life) {
    struct sigaction action = {.sa_handler = on_alarm};
    int never[2];
    char byte;
    MUST(sigaction(SIGALRM, &action, NULL) == 0 && pipe(never) == 0);
    for (uint64_t k = 1;; k++) {
        struct itimerval once = {{0, 0}, {0, 20000 + mix(k * CHILDREN + me) % 20000}};
        MUST(setitimer(ITIMER_REAL, &once, NULL) == 0);
        MUST(read(never[0], &byte, 1) == -1 && errno == EINTR);
        if (write(life, "x", 1) != 1) _exit(0);
    }
}

int main(int argc, char **argv) {
    long steps = argument(argc, argv, 1, 150);
    uint64_t hash = 29;
    int life[CHILDREN][2];
    signal(SIGPIPE, SIG_IGN);
    for (long i = 0; i < CHILDREN; i++) {
        MUST(pipe(life[i]) == 0);
        if (fork() == 0) {
            for (int k = 0; k <= i; k++) close(life[k][0]);
            child(i, life[i][1]);
        }
        close(life[i][1]);
    }
    for (long k = 1; k <= steps; k++) {
        char byte;
        /* Each of them once in each step: one that hangs, hangs this. */
        for (int i = 0; i < CHILDREN; i++) MUST(read(life[i][0], &byte, 1) == 1 && byte == 'x');
        hash = work(hash, 1000);
        step(k, hash);
    }
    for (int i = 0; i < CHILDREN; i++) close(life[i][0]);
    while (wait(NULL) > 0) {}
    result(hash);
    return 0;
}
