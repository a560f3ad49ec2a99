/* segment HOW: when the control segment is mapped: at the start, after a park ("park"), after a thread ("thread"). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static int mapped(int maps) {
    static char text[1 << 16];
    size_t length = 0;
    lseek(maps, 0, SEEK_SET);
    for (ssize_t got; (got = read(maps, text + length, sizeof text - 1 - length)) > 0;) length += got;
    text[length] = 0;
    return strstr(text, "/job/segment") != NULL;
}

static void *nothing(void *argument) { return argument; }

int main(int argc, char **argv) {
    int maps = open("/proc/self/maps", O_RDONLY);
    printf("start %d\n", mapped(maps));
    if (!strcmp(argv[argc - 1], "thread")) {
        pthread_t thread;
        pthread_create(&thread, NULL, nothing, NULL);
        pthread_join(thread, NULL);
    } else {
        struct rlimit limit, after;
        getrlimit(RLIMIT_NOFILE, &limit);
        limit.rlim_cur = 20;
        setrlimit(RLIMIT_NOFILE, &limit);
        while (dup(maps) >= 0) {}
        siginfo_t from_elsewhere = {.si_code = SI_QUEUE};
        syscall(SYS_rt_sigqueueinfo, getpid(), 33, &from_elsewhere);
        getrlimit(RLIMIT_NOFILE, &after);
        printf("limit %d, descriptor left %d\n", limit.rlim_cur == after.rlim_cur, dup(maps) >= 0);
    }
    printf("then %d\n", mapped(maps));
    return 0;
}
