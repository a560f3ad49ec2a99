/* tree STEPS [STOPPED]: children, grandchildren, an orphan, a zombie, sessions and groups, pipes between them, a stopped child. */
#include "judge.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define CHILDREN 3
static int down[CHILDREN][2], up[CHILDREN][2];
static pid_t children[CHILDREN];

/* Answers each number with its hash, mixed with what must not change about itself. */
static void child(int me) {
    pid_t pid = getpid(), parent = getppid();
    if (me == 1) MUST(setsid() == pid);
    if (me == 2) MUST(setpgid(0, 0) == 0);
    pid_t group = getpgrp(), session = getsid(0);
    int pipes[2];
    MUST(pipe(pipes) == 0);
    pid_t grandchild = fork();
    if (grandchild == 0) {
        uint64_t value;
        close(pipes[1]);
        while (read(pipes[0], &value, 8) == 8) {
            value = mix(value + 99);
            if (write(up[me][1], &value, 8) != 8) _exit(1);
        }
        _exit(0);
    }
    close(pipes[0]);
    for (uint64_t value; read(down[me][0], &value, 8) == 8;) {
        MUST(getpid() == pid && getppid() == parent && getpgrp() == group && getsid(0) == session);
        value = work(value ^ me, 300);
        MUST(write(pipes[1], &value, 8) == 8);
    }
    close(pipes[1]);
    int status;
    MUST(waitpid(grandchild, &status, 0) == grandchild && status == 0);
    _exit(10 + me);
}

static pid_t orphan(int *alive) {
    int said[2], life[2];
    pid_t pid;
    MUST(pipe(said) == 0 && pipe(life) == 0);
    pid_t mid = fork();
    if (mid == 0) {
        if (fork() == 0) {
            pid_t me = getpid();
            char byte;
            close(life[1]);
            if (write(said[1], &me, sizeof me) != sizeof me) _exit(1);
            while (read(life[0], &byte, 1) > 0) {}
            _exit(0);
        }
        _exit(0);
    }
    MUST(waitpid(mid, NULL, 0) == mid);
    MUST(read(said[0], &pid, sizeof pid) == sizeof pid);
    close(life[0]);
    *alive = life[1];
    return pid;
}

/* A child that job control has stopped. */
static pid_t stopped(int alive) {
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(alive);
        for (int i = 0; i < CHILDREN; i++) close(down[i][1]);
        raise(SIGSTOP);
        for (;;) pause();
    }
    MUST(pid > 0 && waitpid(pid, NULL, WUNTRACED) == pid);
    return pid;
}

int main(int argc, char **argv) {
    long steps = argument(argc, argv, 1, 150);
    uint64_t hash = 11;
    int alive;
    pid_t lone = orphan(&alive), me = getpid(), group = getpgrp(), session = getsid(0);
    fcntl(alive, F_SETFD, FD_CLOEXEC);
    for (int i = 0; i < CHILDREN; i++) {
        MUST(pipe(down[i]) == 0 && pipe(up[i]) == 0);
        children[i] = fork();
        if (children[i] == 0) {
            close(alive);
            for (int j = 0; j <= i; j++) close(down[j][1]);
            child(i);
        }
        close(down[i][0]);
    }
    pid_t zombie = fork(), sleeper = 0;
    if (zombie == 0) _exit(77);
    siginfo_t info;
    MUST(waitid(P_PID, zombie, &info, WEXITED | WNOWAIT) == 0 && info.si_status == 77);
    if (argc > 2) sleeper = stopped(alive);
    for (long k = 1; k <= steps; k++) {
        for (int i = 0; i < CHILDREN; i++) MUST(write(down[i][1], &hash, 8) == 8);
        for (int i = 0; i < CHILDREN; i++) {
            uint64_t value;
            MUST(read(up[i][0], &value, 8) == 8);
            hash = mix(hash ^ value);
        }
        MUST(getpid() == me && getpgrp() == group && getsid(0) == session);
        MUST(kill(lone, 0) == 0 && getsid(children[1]) == children[1] && getpgid(children[2]) == children[2]);
        MUST(waitid(P_PID, zombie, &info, WEXITED | WNOWAIT | WNOHANG) == 0 && info.si_pid == zombie && info.si_status == 77);
        usleep(10000);
        step(k, hash);
    }
    int status;
    for (int i = 0; i < CHILDREN; i++) {
        close(down[i][1]);
        MUST(waitpid(children[i], &status, 0) == children[i] && WEXITSTATUS(status) == 10 + i);
    }
    MUST(waitpid(zombie, &status, 0) == zombie && WEXITSTATUS(status) == 77);
    if (sleeper) {
        MUST(kill(sleeper, SIGCONT) == 0 && kill(sleeper, SIGTERM) == 0);
        MUST(waitpid(sleeper, &status, 0) == sleeper && WTERMSIG(status) == SIGTERM);
    }
    MUST(waitpid(-1, &status, WNOHANG) == -1 && errno == ECHILD);
    close(alive);
    result(hash);
    return 0;
}
