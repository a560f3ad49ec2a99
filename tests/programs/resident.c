/* resident MEGABYTES SECONDS: touches memory that does not compress to nothing, measures a bare fork of itself, then
 * watches the clock: GAP_MS is the longest time in which it did not run. Says a step every 10 ms. */
#include "judge.h"
#include <sys/wait.h>

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double fork_ms(void) {
    enum { TIMES = 9 };
    double took[TIMES];
    for (int i = 0; i < TIMES; i++) {
        double begun = now_s();
        pid_t pid = fork();
        if (pid == 0) _exit(0);
        took[i] = (now_s() - begun) * 1e3;
        MUST(pid > 0 && waitpid(pid, NULL, 0) == pid);
    }
    qsort(took, TIMES, sizeof *took, by_size);
    return took[TIMES / 2];
}

int main(int argc, char **argv) {
    size_t words = (size_t)argument(argc, argv, 1, 1024) << 17;
    double seconds = argument(argc, argv, 2, 10), gap = 0;
    uint64_t *memory = malloc(words * 8), x = 88172645463325252ULL, hash = 0;
    MUST(memory);
    /* Half of each 512 KiB is noise, half is a slope: what codes and their tables look like. */
    for (size_t i = 0; i < words; i++) {
        x = x * 6364136223846793005ULL + 1442695040888963407ULL;
        memory[i] = i & (1 << 15) ? x : i >> 6;
    }
    printf("FORK_MS %.3f\n", fork_ms());
    double last = now_s(), end = last + seconds, said = 0;
    for (long k = 0; last < end; ) {
        double now = now_s();
        if (now - last > gap) gap = now - last;
        last = now;
        if (now - said > 0.01) step(++k, words), said = now;
    }
    for (size_t i = 0; i < words; i++) hash = hash * 31 + memory[i];
    printf("GAP_MS %.3f\n", gap * 1e3);
    result(mix(hash));
    return 0;
}
