/* loops WHAT COUNT: the time of many small operations, best of five: malloc, open, read, or exec (fork and exec). It is
   processor time, of the program, its children and the kernel: nothing here waits for anything but a processor, which on
   a machine that does other things takes as long as it takes. */
#include "judge.h"
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define ROUNDS 5

static void mallocs(long count) {
    void *held[64] = {0};
    for (long i = 0; i < count; i++) {
        void **slot = &held[mix(i) % 64];
        free(*slot);
        *slot = malloc(16 + mix(i * 7) % 2000);
        MUST(*slot);
    }
    for (int i = 0; i < 64; i++) free(held[i]);
}

static void opens(long count) {
    for (long i = 0; i < count; i++) {
        int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
        MUST(fd >= 0);
        close(fd);
    }
}

static void reads(long count) {
    char bytes[64];
    int fd = open("/dev/zero", O_RDONLY);
    for (long i = 0; i < count; i++) MUST(read(fd, bytes, sizeof bytes) == sizeof bytes);
    close(fd);
}

static void execs(long count) {
    for (long i = 0; i < count; i++) {
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            execl("/bin/true", "true", (char *)NULL);
            _exit(99);
        }
        MUST(waitpid(pid, &status, 0) == pid && status == 0);
    }
}

static double processor_s(void) {
    double sum = 0;
    for (int who = RUSAGE_CHILDREN; who <= RUSAGE_SELF; who++) {
        struct rusage usage;
        getrusage(who, &usage);
        sum += usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    }
    return sum;
}

int main(int argc, char **argv) {
    MUST(argc == 3);
    void (*what)(long) = !strcmp(argv[1], "malloc") ? mallocs : !strcmp(argv[1], "open") ? opens : !strcmp(argv[1], "read") ? reads : execs;
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        double begun = processor_s();
        what(atol(argv[2]));
        double took = processor_s() - begun;
        if (took < best) best = took;
    }
    printf("SECONDS %.6f\n", best);
    return 0;
}
