/* threads STEPS: a barrier of threads with TLS, floating point, mutexes and conditions; some threads come and go; with
 * -fopenmp also an OpenMP team in each step. */
#include "judge.h"
#include <math.h>
#include <pthread.h>
#include <sys/syscall.h>

#define TEAM 5
static pthread_barrier_t start_line, finish_line;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
static uint64_t published[TEAM];
static long now, arrived;
static volatile int over;
static __thread uint64_t own;
static __thread char name[16];

static void *member(void *argument) {
    long me = (long)argument;
    pid_t tid = syscall(SYS_gettid);
    double x = 1.0 + me;
    own = mix(me + 1);
    snprintf(name, sizeof name, "member-%ld", me);
    pthread_setname_np(pthread_self(), name);
    for (long k = 1;; k++) {
        pthread_barrier_wait(&start_line);
        if (over) break;
        MUST(syscall(SYS_gettid) == tid);
        for (int i = 0; i < 8000; i++) {
            x = sin(x) * 1.7 + sqrt(x * x + 1.0);
            own = mix(own + i);
        }
        uint64_t bits;
        memcpy(&bits, &x, sizeof bits);
        published[me] = own ^ bits;
        char have[16];
        MUST(pthread_getname_np(pthread_self(), have, sizeof have) == 0 && strcmp(have, name) == 0);
        pthread_mutex_lock(&lock);
        arrived++;
        pthread_cond_broadcast(&turn);
        while (arrived < TEAM * k) pthread_cond_wait(&turn, &lock);
        pthread_mutex_unlock(&lock);
        pthread_barrier_wait(&finish_line);
    }
    return (void *)(uintptr_t)own;
}

static void *passer_by(void *argument) {
    uint64_t *value = argument;
    *value = work(*value, 500);
    return value;
}

int main(int argc, char **argv) {
    long steps = argument(argc, argv, 1, 150);
    uint64_t hash = 1;
    pthread_t team[TEAM];
    pthread_barrier_init(&start_line, NULL, TEAM + 1);
    pthread_barrier_init(&finish_line, NULL, TEAM + 1);
    for (long i = 0; i < TEAM; i++) MUST(pthread_create(&team[i], NULL, member, (void *)i) == 0);
    for (long k = 1; k <= steps; k++) {
        now = k;
        pthread_barrier_wait(&start_line);
        pthread_barrier_wait(&finish_line);
        for (int i = 0; i < TEAM; i++) hash = mix(hash ^ published[i]);
        pthread_t guest;
        uint64_t value = hash;
        void *back;
        MUST(pthread_create(&guest, NULL, passer_by, &value) == 0);
        MUST(pthread_join(guest, &back) == 0 && back == &value);
        hash ^= value;
#ifdef _OPENMP
        uint64_t sum = 0;
#pragma omp parallel for num_threads(4) reduction(+ : sum) schedule(static)
        for (long i = 0; i < 4000; i++) sum += mix(hash + i);
        hash = mix(hash ^ sum);
#endif
        usleep(10000);
        step(k, hash);
    }
    over = 1;
    pthread_barrier_wait(&start_line);
    for (int i = 0; i < TEAM; i++) {
        void *value;
        MUST(pthread_join(team[i], &value) == 0);
        hash = mix(hash ^ (uintptr_t)value);
    }
    result(hash);
    return 0;
}
