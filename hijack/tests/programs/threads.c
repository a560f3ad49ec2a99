/* Threads, cancellation and setgid() in a threaded program work, and the park signal stays with whoever had it. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <threads.h>
#include <unistd.h>

struct action { void *handler; unsigned long flags; void *restorer; unsigned long mask; };

static struct action action_of_33(void) {
    struct action action = {0};
    syscall(SYS_rt_sigaction, 33, NULL, &action, 8);
    return action;
}

static sem_t started;

static void *twice(void *number) { return (void *)(2 * (long)number); }
static int thrice(void *number) { return 3 * (int)(long)number; }

static void *waits(void *how) {
    int old;
    pthread_setcanceltype(how ? PTHREAD_CANCEL_ASYNCHRONOUS : PTHREAD_CANCEL_DEFERRED, &old);
    sem_post(&started);
    for (;;) pause();
}

int main(void) {
    struct action first = action_of_33();
    pthread_t thread;
    void *result;
    alarm(60);
    sem_init(&started, 0, 0);

    errno = 77;
    int created = pthread_create(&thread, NULL, twice, (void *)21L), number = errno;
    printf("create %d errno %d\n", created, number);
    pthread_join(thread, &result);
    printf("joined %ld\n", (long)result);

    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 16384);
    printf("create small %d\n", pthread_create(&thread, &attributes, twice, (void *)4L));
    pthread_join(thread, &result);
    printf("joined %ld\n", (long)result);

    thrd_t c11;
    int value = 0;
    printf("thrd_create %d\n", thrd_create(&c11, thrice, (void *)5L));
    thrd_join(c11, &value);
    printf("joined %d\n", value);

    for (long how = 0; how < 2; how++) {
        pthread_create(&thread, NULL, waits, (void *)how);
        sem_wait(&started);
        int cancelled = pthread_cancel(thread);
        pthread_join(thread, &result);
        printf("cancel %d, was cancelled %d\n", cancelled, result == PTHREAD_CANCELED);
    }

    /* A cancellation that meets the end of setgid() in the other thread unwinds through whatever handles its signal. */
    for (int round = 0; round < 30; round++) {
        pthread_t several[4];
        for (int i = 0; i < 4; i++) pthread_create(&several[i], NULL, waits, NULL);
        for (int i = 0; i < 4; i++) sem_wait(&started);
        for (int i = 0; i < 10; i++)
            if (setgid(getgid()) || setuid(getuid())) return perror("setgid"), 1;
        for (int i = 0; i < 4; i++) pthread_cancel(several[i]);
        for (int i = 0; i < 4; i++) pthread_join(several[i], NULL);
    }
    puts("setgid and setuid done");

    struct action last = action_of_33();
    int kept = last.handler && last.handler == first.handler && last.flags & SA_ONSTACK;
    if (getenv("SLACKWATER_JOB") && !kept) puts("WRONG: the park signal is lost");
    puts("RESULT done");
    return 0;
}
