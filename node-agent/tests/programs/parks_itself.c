// Three threads and a child park themselves as the preload library would; what comes after runs in the next life.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stddef.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <asm/prctl.h>
#include <unistd.h>

struct state {
    uint32_t pid, tid;
    uint64_t rip, rsp, rbx, rbp, r12, r13, r14, r15, fs, gs, ucontext, robust, robust_len, clear_tid, alt[3], rseq;
    uint32_t rseq_len, rseq_signature, pdeathsig, pad;
    uint64_t slack;
};
int save(struct state *) __attribute__((returns_twice));
__asm__("save: mov %rbx,24(%rdi); mov %rbp,32(%rdi); mov %r12,40(%rdi); mov %r13,48(%rdi); mov %r14,56(%rdi);"
        "mov %r15,64(%rdi); lea 8(%rsp),%rax; mov %rax,16(%rdi); mov (%rsp),%rax; mov %rax,8(%rdi); xor %eax,%eax; ret");

static char *segment;
static volatile uint32_t *word(char *at) { return (volatile uint32_t *)at; }

static char *slot(uint32_t tid) {
    for (uint64_t probe = 0;; probe++) {
        char *slot = segment + SLOTS_AT + (((uint64_t)tid * 0x9E3779B1u + probe) & (SLOTS - 1)) * SLOT_BYTES;
        if (*word(slot) == tid || (*word(slot) == 0 && __sync_bool_compare_and_swap(word(slot), 0, tid))) return slot;
    }
}

static void park(void) {
    uint32_t tid = syscall(SYS_gettid);
    struct state *state = (struct state *)(slot(tid) + THREAD_AT);
    state->pid = getpid();
    state->tid = tid;
    syscall(SYS_arch_prctl, ARCH_GET_FS, &state->fs);
    syscall(SYS_get_robust_list, 0, &state->robust, &state->robust_len);
    state->clear_tid = state->fs + 0x2d0;
    state->slack = 50000;
    state->alt[1] = 2;
    extern const ptrdiff_t __rseq_offset;
    state->rseq = state->fs + __rseq_offset;
    state->rseq_len = 32;
    state->rseq_signature = 0x53053053;
    if (tid == state->pid) {
        uint64_t *facts = (uint64_t *)(slot(tid) + FACTS_AT);
        facts[0] = (uint64_t)segment;
        facts[1] = (uint64_t)sbrk(0);
        for (int signal = 1; signal <= 64; signal++) syscall(SYS_rt_sigaction, signal, 0, facts + 2 + (signal - 1) * 4, 8);
        *(uint32_t *)(slot(tid) + DUMPABLE_AT) = 1;
    }
    if (save(state) == 0) {
        *word(slot(tid) + STATE_AT) = 2;
        for (;;) pause();
    }
    char *mine = slot(tid);
    *word(mine + STATE_AT) = 2;
    while (*word(segment + GATE_AT) < *word(segment + EPOCH_AT)) {
        if (*word(mine + COMMAND_AT) == 4) {
            uint64_t *argument = (uint64_t *)(mine + ARGUMENT_AT);
            munmap((void *)argument[0], argument[1]);
            *word(mine + COMMAND_AT) = 0;
        }
        usleep(100);
    }
    *word(mine + STATE_AT) = 3;
    // What rt_sigreturn does for the library.
    uint64_t none = 0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, 0, 8);
}

static __thread int own;
static int handled;
static void handler(int signal) { handled = signal; }

static void *work(void *number) {
    own = 10 * (int)(intptr_t)number;
    uint32_t before = gettid();
    park();
    return (void *)(intptr_t)(before == (uint32_t)gettid() ? own + 1 : -1000);
}

int main(void) {
    char path[4096];
    snprintf(path, sizeof path, "%s/segment", getenv("SLACKWATER_JOB"));
    int file = open(path, O_RDWR);
    segment = mmap(0, SEGMENT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    signal(SIGUSR1, handler);
    pid_t parent = getpid(), child = fork();
    if (child == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
    pthread_t threads[2];
    for (intptr_t at = 0; at < 2; at++) pthread_create(&threads[at], 0, work, (void *)(at + 1));
    char *memory = malloc(1 << 20);
    memset(memory, 42, 1 << 20);
    park();
    long sum = 0;
    for (int at = 0; at < 2; at++) {
        void *result;
        pthread_join(threads[at], &result);
        sum += (intptr_t)result;
    }
    for (int at = 0; at < 1 << 20; at++) sum += memory[at] != 42;
    raise(SIGUSR1);
    sum += handled == SIGUSR1 ? 0 : 10000;
    if (child == 0) return getppid() == parent && sum == 32 ? 5 : 6;
    int status;
    if (waitpid(child, &status, 0) != child || WEXITSTATUS(status) != 5) sum += 100000;
    printf("%d %d %ld\n", getpid() == parent, getsid(0) > 0, sum);
    fflush(stdout);
    return 7;
}
