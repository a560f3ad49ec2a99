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
#include <sys/shm.h>
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

// Memory that parent and child share; each marks a page of each that can be written to.
enum { ANONYMOUS, SEGMENT, NAMED, UNLINKED, STORE, KINDS, PAGE = 4096, SEALS = F_SEAL_WRITE | F_SEAL_SHRINK };
static char *shared[KINDS], *sealed;
static int sealed_file, segment_id;

static char *share_file(int file) {
    if (file < 0 || ftruncate(file, 4 * PAGE)) exit(90);
    return mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
}

static void share(void) {
    char name[64];
    shared[ANONYMOUS] = mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    segment_id = shmget(IPC_PRIVATE, 4 * PAGE, IPC_CREAT | 0600);
    shared[SEGMENT] = shmat(segment_id, 0, 0);
    shmctl(segment_id, IPC_RMID, 0);
    snprintf(name, sizeof name, "/slackwater-test-%d", getpid());
    shared[NAMED] = share_file(shm_open(name, O_RDWR | O_CREAT, 0600));
    snprintf(name, sizeof name, "/slackwater-test-%d-u", getpid());
    shared[UNLINKED] = share_file(shm_open(name, O_RDWR | O_CREAT, 0600));
    shm_unlink(name);
    snprintf(name, sizeof name, "%s/store", getenv("SLACKWATER_TEST_FILES"));
    shared[STORE] = share_file(open(name, O_RDWR | O_CREAT, 0600));
    sealed_file = memfd_create("sealed", MFD_ALLOW_SEALING);
    char *writable = share_file(sealed_file);
    strcpy(writable, "sealed");
    munmap(writable, 4 * PAGE);
    fcntl(sealed_file, F_ADD_SEALS, SEALS);
    snprintf(name, sizeof name, "/proc/self/fd/%d", sealed_file);
    int reader = open(name, O_RDONLY);
    sealed = mmap(0, 4 * PAGE, PROT_READ, MAP_SHARED, reader, 0);
    close(reader);
}

static void mark(int page) {
    for (int kind = 0; kind < KINDS; kind++) shared[kind][page * PAGE] = 'a' + kind;
}

// Pages 1 and 2 are the parent's and the child's, 3 is written in the next life, 0 never.
static long lost(int last) {
    long lost = 0;
    for (int kind = 0; kind < KINDS; kind++)
        for (int page = 0; page < 4; page++)
            lost += shared[kind][page * PAGE] != (page > 0 && page <= last ? 'a' + kind : 0);
    struct shmid_ds segment;
    lost += shmctl(segment_id, IPC_STAT, &segment) != 0 || !(segment.shm_perm.mode & SHM_DEST);
    lost += fcntl(sealed_file, F_GET_SEALS) != SEALS || strcmp(sealed, "sealed") || pwrite(sealed_file, "x", 1, 0) != -1;
    return lost * 1000000;
}

int main(void) {
    char path[4096];
    snprintf(path, sizeof path, "%s/segment", getenv("SLACKWATER_JOB"));
    int file = open(path, O_RDWR);
    segment = mmap(0, SEGMENT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    signal(SIGUSR1, handler);
    share();
    pid_t parent = getpid(), child = fork();
    if (child == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
    pthread_t threads[2];
    for (intptr_t at = 0; at < 2; at++) pthread_create(&threads[at], 0, work, (void *)(at + 1));
    char *memory = malloc(1 << 20);
    memset(memory, 42, 1 << 20);
    mark(child ? 1 : 2);
    park();
    long sum = child ? 0 : lost(2);
    if (child == 0) mark(3);
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
    sum += lost(3);
    printf("%d %d %ld\n", getpid() == parent, getsid(0) > 0, sum);
    fflush(stdout);
    return 7;
}
