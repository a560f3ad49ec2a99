/* ipc STEPS: System V semaphores and message queues, to which no descriptor leads, between two processes. */
#include "judge.h"
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/wait.h>

struct message {
    long type;
    uint64_t value;
};

static void change(int set, int which, int by) {
    struct sembuf operation = {.sem_num = which, .sem_op = by};
    MUST(semop(set, &operation, 1) == 0);
}

/* Doubles what it is asked for, in turns. */
static void other(int set, int queue) {
    struct message message;
    for (;;) {
        change(set, 0, -1);
        MUST(msgrcv(queue, &message, sizeof message.value, 1, 0) == sizeof message.value);
        if (message.value == 0) _exit(4);
        message.type = 2;
        message.value *= 2;
        MUST(msgsnd(queue, &message, sizeof message.value, 0) == 0);
        change(set, 1, 1);
    }
}

int main(int argc, char **argv) {
    long steps = argument(argc, argv, 1, 150);
    key_t key = ftok(argv[0], getpid() & 127);
    int set = semget(key, 3, IPC_CREAT | IPC_EXCL | 0640), queue = msgget(IPC_PRIVATE, 0600), status;
    MUST(set >= 0 && queue >= 0 && semctl(set, 2, SETVAL, 1234) == 0);
    struct message kept = {.type = 9, .value = 99}, last = {.type = 9, .value = 100};
    MUST(msgsnd(queue, &kept, sizeof kept.value, 0) == 0 && msgsnd(queue, &last, sizeof last.value, 0) == 0);
    pid_t child = fork();
    if (child == 0) other(set, queue);
    uint64_t hash = 1;
    for (long k = 1; k <= steps; k++) {
        struct message message = {.type = 1, .value = k};
        MUST(msgsnd(queue, &message, sizeof message.value, 0) == 0);
        usleep(5000);
        change(set, 0, 1);
        change(set, 1, -1);
        MUST(msgrcv(queue, &message, sizeof message.value, 2, 0) == sizeof message.value && message.value == (uint64_t)k * 2);
        MUST(semctl(set, 2, GETVAL) == 1234 && semget(key, 3, 0) == set);
        hash = mix(hash ^ message.value);
        usleep(5000);
        step(k, hash);
    }
    struct message end = {.type = 1};
    MUST(msgsnd(queue, &end, sizeof end.value, 0) == 0);
    change(set, 0, 1);
    MUST(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 4);
    for (uint64_t value = 99; value <= 100; value++) {
        struct message message;
        MUST(msgrcv(queue, &message, sizeof message.value, 9, IPC_NOWAIT) == sizeof message.value && message.value == value);
    }
    MUST(semctl(set, 0, IPC_RMID) == 0 && msgctl(queue, IPC_RMID, NULL) == 0);
    result(hash);
    return 0;
}
