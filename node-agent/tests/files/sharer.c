// Two processes with shared memory of every kind. Says where each lies, "name parent-address child-address", and waits.
// Every page begins with the number of its object and its own: what is stored can be judged without asking.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, RW = PROT_READ | PROT_WRITE };

static const char *folder;

static void *must(void *at, const char *what) {
    if (at == MAP_FAILED || at == 0) {
        perror(what);
        exit(1);
    }
    return at;
}

static void mark(char *at, int object, int page) {
    uint32_t words[2] = {(uint32_t)object, (uint32_t)page};
    memcpy(at + (size_t)page * PAGE, words, sizeof words);
}

static char *map(int file, size_t pages, int protection, int flags) {
    return must(mmap(0, pages * PAGE, protection, flags, file, 0), "mmap");
}

static int file(const char *name, int flags, size_t bytes) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int file = open(path, flags, 0640);
    if (file < 0 || (bytes && ftruncate(file, (off_t)bytes))) {
        perror(path);
        exit(1);
    }
    return file;
}

static void delete(const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path);
}

static char *anonymous, *hidden, *memfd, *closed_memfd, *removed, *kept, *named_shm, *unlinked_shm, *deleted,
    *deleted_private, *store, *was_writable, *untouched;


static void memory(void) {
    anonymous = map(-1, 8, RW, MAP_SHARED | MAP_ANONYMOUS);
    hidden = map(-1, 4, RW, MAP_SHARED | MAP_ANONYMOUS);
    for (int page = 0; page < 4; page++) mark(hidden, 2, page);
    int number = memfd_create("holes", MFD_ALLOW_SEALING);
    if (ftruncate(number, 4096 * PAGE)) exit(1);
    memfd = map(number, 4096, RW, MAP_SHARED);
    mark(memfd, 3, 0);
    mark(memfd, 3, 4000);
    fcntl(number, F_ADD_SEALS, F_SEAL_GROW);
    lseek(number, 77, SEEK_SET);
    number = memfd_create("closed", 0);
    if (ftruncate(number, 3 * PAGE)) exit(1);
    // Longer than what is behind it.
    closed_memfd = map(number, 5, RW, MAP_SHARED);
    for (int page = 0; page < 3; page++) mark(closed_memfd, 4, page);
    close(number);
}

static void segments(void) {
    int id = shmget(IPC_PRIVATE, 5000, IPC_CREAT | 0640);
    removed = must(shmat(id, 0, 0), "shmat");
    shmctl(id, IPC_RMID, 0);
    mark(removed, 5, 0);
    mark(removed, 5, 1);
    id = shmget(getpid(), 3 * PAGE, IPC_CREAT | 0600);
    kept = must(shmat(id, 0, 0), "shmat");
    mark(kept, 6, 2);
    printf("id %d %d\n", id, getpid());
}

static void shm(void) {
    char name[64];
    snprintf(name, sizeof name, "/slackwater-test-%d", getpid());
    int number = shm_open(name, O_RDWR | O_CREAT, 0600);
    if (ftruncate(number, 4 * PAGE)) exit(1);
    named_shm = map(number, 4, RW, MAP_SHARED);
    mark(named_shm, 7, 3);
    close(number);
    snprintf(name, sizeof name, "/slackwater-test-%d-u", getpid());
    number = shm_open(name, O_RDWR | O_CREAT, 0600);
    if (ftruncate(number, 4 * PAGE)) exit(1);
    unlinked_shm = map(number, 4, RW, MAP_SHARED);
    mark(unlinked_shm, 8, 1);
    shm_unlink(name);
    close(number);
}

static void files(void) {
    int number = file("deleted", O_RDWR | O_CREAT, 100 * PAGE + 9);
    deleted = map(number, 2, RW, MAP_SHARED);
    mark(deleted, 9, 1);
    delete("deleted");
    number = file("private", O_RDWR | O_CREAT, 4 * PAGE);
    char *at = map(number, 4, RW, MAP_SHARED);
    for (int page = 0; page < 4; page++) mark(at, 10, page);
    munmap(at, 4 * PAGE);
    deleted_private = map(number, 4, RW, MAP_PRIVATE);
    close(number);
    delete("private");
    store = map(file("store", O_RDWR | O_CREAT, 4 * PAGE), 4, RW, MAP_SHARED);
    mark(store, 11, 2);
    number = file("protected", O_RDWR | O_CREAT, PAGE);
    was_writable = map(number, 1, RW, MAP_SHARED);
    close(number);
    mark(was_writable, 12, 0);
    mprotect(was_writable, PAGE, PROT_READ);
    // One process has it open for writing, the other sees it as memory.
    number = file("written", O_RDWR | O_CREAT, PAGE);
    uint32_t words[2] = {13, 0};
    if (pwrite(number, words, sizeof words, 0) != sizeof words) exit(1);
    close(file("untouched", O_RDWR | O_CREAT, PAGE));
    number = file("untouched", O_RDONLY, 0);
    untouched = map(number, 1, PROT_READ, MAP_SHARED);
    close(number);
}

// What only the child does: pages of its own, and other views of what its parent has.
static void child(int ready) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int page = 2; page < 6; page++) mark(anonymous, 1, page);
    munmap(anonymous, 2 * PAGE);
    mprotect(hidden, 4 * PAGE, PROT_NONE);
    mark(deleted_private, 99, 3);
    // Opened anew, for reading alone.
    int number = file("store", O_RDONLY, 0);
    char *child_store = map(number, 4, PROT_READ, MAP_SHARED);
    close(number);
    number = file("written", O_RDONLY, 0);
    char *child_written = map(number, 1, PROT_READ, MAP_SHARED);
    close(number);
    munmap(store, 4 * PAGE);
    char *views[] = {child_store, child_written};
    if (write(ready, views, sizeof views) != sizeof views) exit(1);
    for (;;) pause();
}

int main(int count, char **arguments) {
    (void)count;
    folder = arguments[1];
    memory();
    segments();
    shm();
    files();
    int ready[2];
    if (pipe(ready)) return 1;
    pid_t pid = fork();
    if (pid == 0) child(ready[1]);
    char *views[2];
    if (read(ready[0], views, sizeof views) != sizeof views) return 1;
    close(ready[0]);
    close(ready[1]);
    mark(anonymous, 1, 1);
    munmap(anonymous + 4 * PAGE, 4 * PAGE);
    // Nobody may look at it now.
    mprotect(hidden, 4 * PAGE, PROT_NONE);
    mark(deleted_private, 98, 0);
    struct { const char *name; char *parent, *child; } all[] = {
        {"anonymous", anonymous, anonymous + 2 * PAGE}, {"hidden", hidden, hidden}, {"memfd", memfd, memfd},
        {"closed_memfd", closed_memfd, closed_memfd}, {"removed", removed, removed}, {"kept", kept, kept},
        {"named_shm", named_shm, named_shm}, {"unlinked_shm", unlinked_shm, unlinked_shm},
        {"deleted", deleted, deleted}, {"deleted_private", deleted_private, deleted_private},
        {"store", store, views[0]}, {"was_writable", was_writable, was_writable}, {"written", 0, views[1]},
        {"untouched", untouched, untouched},
    };
    for (size_t at = 0; at < sizeof all / sizeof *all; at++)
        printf("%s %lu %lu\n", all[at].name, (unsigned long)all[at].parent, (unsigned long)all[at].child);
    printf("child %d 0\nready\n", pid);
    fflush(stdout);
    for (;;) pause();
}
