/* A park on an alternate stack: of every size that the kernel accepts, with a guard page below. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static void own(int signal) { (void)signal; }

int main(void) {
    static const size_t sizes[] = {1000, 2048, 3000, 4096, 8191, 8192, 16384, 65536};
    struct sigaction action = {.sa_handler = own, .sa_flags = SA_ONSTACK};
    stack_t none = {.ss_flags = SS_DISABLE}, wrong = {.ss_flags = 64, .ss_size = 4096}, seen;
    alarm(60);
    sigaction(SIGUSR1, &action, NULL);
    char *memory = mmap(NULL, 4096 + 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(memory, 4096, PROT_NONE);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        stack_t stack = {.ss_sp = memory + 4096, .ss_size = sizes[i]};
        errno = 0;
        int result = sigaltstack(&stack, NULL);
        printf("%zu: %d errno %d", sizes[i], result, errno);
        syscall(SYS_tgkill, getpid(), getpid(), 33);
        syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1);
        sigaltstack(&none, &seen);
        if (sizes[i] >= 8192) printf(", size %zu flags %x", seen.ss_size, seen.ss_flags);
        puts("");
    }
    int result = sigaltstack(&wrong, NULL), number = errno;
    printf("wrong flags %d errno %d\n", result, number);
    puts("RESULT done");
    return 0;
}
