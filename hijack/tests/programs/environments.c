/* Starts `printenv` in an environment of its own in one of several ways; the first argument says which. */
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *const show[] = {"printenv", NULL};

static int spawned(int result, pid_t child) {
    int status = 0;
    if (result) return fprintf(stderr, "%s\n", strerror(result)), 2;
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
}

int main(int argc, char **argv) {
    pid_t child = 0;
    const char *how = argv[1];
    char **given = argv + 2; /* the rest is the environment, up to argv's null */
    alarm(60);
    if (argc < 2) return 2;
    if (!strcmp(how, "spawn")) return spawned(posix_spawn(&child, "/usr/bin/printenv", NULL, NULL, show, given), child);
    if (!strcmp(how, "spawnp")) return spawned(posix_spawnp(&child, "printenv", NULL, NULL, show, given), child);
    if (!strcmp(how, "spawn-missing")) {
        int result = posix_spawn(&child, "/no/such", NULL, NULL, show, given);
        return printf("%d\n", result), 0;
    }
    if (!strcmp(how, "many")) {
        static char *variables[4001];
        for (int i = 0; i < 4000; i++) variables[i] = "MANY=1";
        execve("/usr/bin/printenv", show, variables);
    }
    if (!strcmp(how, "exec")) execve("/usr/bin/printenv", show, given);
    return 2;
}
