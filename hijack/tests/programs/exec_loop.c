/* `exec_loop N` executes itself N times, by the ways of exec in turn. `exec_loop fire N` starts that, sends it the park
 * signal all the while, and prints how it ended. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int go_on(char *self, int left) {
    char text[20];
    snprintf(text, sizeof text, "%d", left);
    char *const next[] = {self, text, NULL};
    switch (left % 5) {
    case 0: return execv(self, next);
    case 1: return execl(self, self, text, NULL);
    case 2: return execle(self, self, text, NULL, environ);
    case 3: return execvp(self, next);
    default: return fexecve(open(self, O_RDONLY | O_CLOEXEC), next, environ);
    }
}

static int fire(char *self, int lives) {
    long signals = 0;
    int status;
    pid_t child = fork();
    if (child == 0) return go_on(self, lives);
    while (waitpid(child, &status, WNOHANG) == 0) {
        signals += kill(child, 33) == 0;
        usleep(20); /* the signal queues: without a pause there is no end to handling it */
    }
    printf("exit %d signal %d\n", WEXITSTATUS(status), WTERMSIG(status));
    return signals == 0; /* nothing was tried */
}

int main(int argc, char **argv) {
    alarm(100);
    if (argc > 2 && !strcmp(argv[1], "fire")) return fire(argv[0], atoi(argv[2]));
    int left = argc > 1 ? atoi(argv[1]) : 0;
    return left == 0 ? 0 : go_on(argv[0], left - 1);
}
