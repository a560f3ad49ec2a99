/* terminal STEPS: what script(1) does: a child in a session of its own on a pty, talked to line by line. */
#include "judge.h"
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <termios.h>

static void child(void) {
    char line[256];
    pid_t me = getpid();
    MUST(isatty(0) && isatty(1) && getsid(0) == me && tcgetpgrp(0) == getpgrp());
    while (fgets(line, sizeof line, stdin)) {
        uint64_t value = strtoull(line, NULL, 16);
        MUST(getsid(0) == me && tcgetpgrp(0) == getpgrp() && ttyname(0));
        printf("%016lx\n", (unsigned long)work(value, 100));
        fflush(stdout);
    }
    _exit(5);
}

int main(int argc, char **argv) {
    long steps = argument(argc, argv, 1, 150);
    uint64_t hash = 13;
    struct winsize size = {.ws_row = 24, .ws_col = 80};
    struct termios settings;
    int master, status;
    pid_t other = forkpty(&master, NULL, NULL, &size);
    if (other == 0) child();
    MUST(other > 0 && tcgetattr(master, &settings) == 0);
    settings.c_lflag &= ~ECHO;
    settings.c_oflag &= ~ONLCR;
    MUST(tcsetattr(master, TCSANOW, &settings) == 0);
    FILE *from = fdopen(dup(master), "r");
    char line[64];
    for (long k = 1; k <= steps; k++) {
        int n = snprintf(line, sizeof line, "%016lx\n", (unsigned long)hash);
        MUST(write(master, line, n) == n);
        MUST(fgets(line, sizeof line, from));
        uint64_t value = strtoull(line, NULL, 16);
        MUST(value == work(hash, 100));
        hash = mix(hash ^ value);
        usleep(10000);
        step(k, hash);
    }
    MUST(write(master, "\4", 1) == 1);
    MUST(waitpid(other, &status, 0) == other && WEXITSTATUS(status) == 5);
    result(hash);
    return 0;
}
