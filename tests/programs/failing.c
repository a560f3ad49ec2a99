/* A library to preload into ckpt-run: a system call of the agent fails with EIO while the file named by SLACKWATER_FAULT
 * holds the call's name. What the disk, the file system or the kernel may do to a checkpoint, at a moment of our choice. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int holds(const char *path, const char *wanted) {
    char text[32] = {0};
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    ssize_t length = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    return length > 0 && strncmp(text, wanted, strlen(wanted)) == 0;
}

static int fails(const char *call) {
    if (!holds("/proc/self/comm", "ckpt-agent") || !holds(getenv("SLACKWATER_FAULT"), call)) return 0;
    errno = EIO;
    return 1;
}

int fsync(int file) {
    return fails("fsync") ? -1 : syscall(SYS_fsync, file);
}

int rename(const char *from, const char *to) {
    return fails("rename") ? -1 : syscall(SYS_rename, from, to);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    return fails("writev") ? -1 : syscall(SYS_writev, file, parts, count);
}

ssize_t process_vm_readv(pid_t pid, const struct iovec *here, unsigned long n, const struct iovec *there, unsigned long m, unsigned long flags) {
    return fails("process_vm_readv") ? -1 : syscall(SYS_process_vm_readv, pid, here, n, there, m, flags);
}
