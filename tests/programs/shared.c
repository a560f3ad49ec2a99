/* shared STEPS: two processes compute in turns through shared memory of every kind, with a process-shared mutex. */
#include "judge.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define SIZE (256 << 10)
#define KINDS 7
struct meeting {
    pthread_mutex_t lock;
    pthread_cond_t turn;
    long step, parent_done, child_done;
    int over;
};
static uint64_t *kinds[KINDS];
static struct meeting *meeting;

static void *map(int fd, int flags) {
    void *at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, flags, fd, 0);
    MUST(at != MAP_FAILED);
    return at;
}

static int sized(int fd) {
    MUST(fd >= 0 && ftruncate(fd, SIZE) == 0);
    return fd;
}

static void make_kinds(char *name, size_t length) {
    kinds[0] = map(-1, MAP_SHARED | MAP_ANONYMOUS);
    snprintf(name, length, "/shared-%d", (int)getpid());
    int named = sized(shm_open(name, O_CREAT | O_EXCL | O_RDWR, 0600));
    kinds[1] = map(named, MAP_SHARED);
    close(named);
    char gone[64];
    snprintf(gone, sizeof gone, "/gone-%d", (int)getpid());
    int unlinked = sized(shm_open(gone, O_CREAT | O_EXCL | O_RDWR, 0600));
    kinds[2] = map(unlinked, MAP_SHARED);
    MUST(shm_unlink(gone) == 0);
    int id = shmget(IPC_PRIVATE, SIZE, IPC_CREAT | 0600);
    MUST(id >= 0);
    kinds[3] = shmat(id, NULL, 0);
    MUST(kinds[3] != (void *)-1 && shmctl(id, IPC_RMID, NULL) == 0);
    int memory = sized(memfd_create("shared", 0));
    kinds[4] = map(memory, MAP_SHARED);
    int file = sized(open("mapped.dat", O_CREAT | O_TRUNC | O_RDWR, 0600));
    kinds[5] = map(file, MAP_SHARED);
    close(file);
    int zero = open("/dev/zero", O_RDWR);
    MUST(zero >= 0);
    kinds[6] = map(zero, MAP_SHARED);
    close(zero);
}

static void make_meeting(void) {
    meeting = map(-1, MAP_SHARED | MAP_ANONYMOUS);
    pthread_mutexattr_t mutex;
    pthread_condattr_t condition;
    pthread_mutexattr_init(&mutex);
    pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&mutex, PTHREAD_MUTEX_ROBUST);
    pthread_condattr_init(&condition);
    pthread_condattr_setpshared(&condition, PTHREAD_PROCESS_SHARED);
    MUST(pthread_mutex_init(&meeting->lock, &mutex) == 0 && pthread_cond_init(&meeting->turn, &condition) == 0);
}

/* Each kind's words of one parity belong to the parent, the others to the child; each reads the other's. */
static void turn_of(int who, long k) {
    long words = SIZE / 8;
    for (int kind = 0; kind < KINDS; kind++)
        for (long i = (k % 61) * 2 + who; i < words; i += 122) kinds[kind][i] = mix(kinds[kind][i ^ 1] + k + kind);
}

static void child(void) {
    for (;;) {
        pthread_mutex_lock(&meeting->lock);
        while (meeting->parent_done == meeting->child_done && !meeting->over) pthread_cond_wait(&meeting->turn, &meeting->lock);
        if (meeting->over) {
            pthread_mutex_unlock(&meeting->lock);
            _exit(0);
        }
        turn_of(1, meeting->step);
        meeting->child_done++;
        pthread_cond_signal(&meeting->turn);
        pthread_mutex_unlock(&meeting->lock);
    }
}

int main(int argc, char **argv) {
    long steps = argument(argc, argv, 1, 150);
    uint64_t hash = 5;
    char name[64];
    make_kinds(name, sizeof name);
    make_meeting();
    uint64_t *private_view = map(open("mapped.dat", O_RDONLY), MAP_PRIVATE);
    private_view[7] = 1234567;
    pid_t other = fork();
    if (other == 0) child();
    for (long k = 1; k <= steps; k++) {
        pthread_mutex_lock(&meeting->lock);
        turn_of(0, k);
        meeting->step = k;
        meeting->parent_done++;
        pthread_cond_signal(&meeting->turn);
        while (meeting->child_done != meeting->parent_done) pthread_cond_wait(&meeting->turn, &meeting->lock);
        pthread_mutex_unlock(&meeting->lock);
        for (int kind = 0; kind < KINDS; kind++)
            for (long i = 0; i < SIZE / 8; i += 16) hash = mix(hash ^ kinds[kind][i]);
        MUST(private_view[7] == 1234567);
        int again = shm_open(name, O_RDONLY, 0);
        struct stat about;
        MUST(again >= 0 && fstat(again, &about) == 0 && about.st_size == SIZE);
        uint64_t word;
        MUST(pread(again, &word, 8, 800) == 8 && word == kinds[1][100]);
        close(again);
        usleep(10000);
        step(k, hash);
    }
    pthread_mutex_lock(&meeting->lock);
    meeting->over = 1;
    pthread_cond_signal(&meeting->turn);
    pthread_mutex_unlock(&meeting->lock);
    int status;
    MUST(waitpid(other, &status, 0) == other && status == 0);
    int file = open("mapped.dat", O_RDONLY);
    for (long i = 0; i < SIZE / 8; i += 64) {
        uint64_t word;
        MUST(pread(file, &word, 8, i * 8) == 8 && word == kinds[5][i]);
    }
    MUST(shm_unlink(name) == 0);
    result(hash);
    return 0;
}
