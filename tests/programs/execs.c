/* execs STEPS: execs, vforks and posix_spawns in loops, all of which must end as they should. */
#include "judge.h"
#include <pthread.h>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;
static volatile int over;
static long spawned;

static int ended_with(pid_t pid) {
    int status;
    MUST(waitpid(pid, &status, 0) == pid);
    if (!WIFEXITED(status)) WRONG("a child ended by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

static pid_t forked(void) {
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", "exec /bin/sh -c 'exit 3'", (char *)NULL);
        _exit(99);
    }
    return pid;
}

static pid_t vforked(void) {
    pid_t pid = vfork();
    if (pid == 0) {
        execl("/bin/true", "true", (char *)NULL);
        _exit(99);
    }
    return pid;
}

static void *spawner(void *argument) {
    char *words[] = {"sh", "-c", "exit 4", NULL};
    while (!over) {
        pid_t pid;
        MUST(posix_spawn(&pid, "/bin/sh", NULL, NULL, words, environ) == 0);
        MUST(ended_with(pid) == 4);
        spawned++;
    }
    return argument;
}

int main(int argc, char **argv) {
    long steps = argument(argc, argv, 1, 200);
    uint64_t hash = 19;
    pthread_t thread;
    MUST(pthread_create(&thread, NULL, spawner, NULL) == 0);
    for (long k = 1; k <= steps; k++) {
        MUST(ended_with(forked()) == 3);
        MUST(ended_with(vforked()) == 0);
        FILE *said = popen("echo $((6*7))", "r");
        int number;
        MUST(said && fscanf(said, "%d", &number) == 1 && number == 42 && pclose(said) == 0);
        hash = work(hash, 100);
        usleep(5000);
        step(k, hash);
    }
    over = 1;
    MUST(pthread_join(thread, NULL) == 0 && spawned > 0);
    result(hash);
    return 0;
}
