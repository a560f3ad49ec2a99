/* descriptors STEPS: one descriptor of every kind that an MPI rank has, each with something in it that must survive. */
#include "judge.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <termios.h>

#define FLIGHT 60000
static int lines, appended, twin, deleted, readonly_file, folder, symbolic, null_device;
static int pipe_ends[2], fifo, pair[2], packets[2], event, timer, signals, queue, memory, master, slave;
static int listener, near_end, far_end, unix_listener, unix_near, unix_far, udp[2];
static char flight[FLIGHT];

static int same_file(int a, int b) {
    struct stat x, y;
    return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static void open_files(void) {
    MUST((lines = open("lines.txt", O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0640)) >= 0);
    MUST((appended = open("appended.txt", O_CREAT | O_TRUNC | O_WRONLY | O_APPEND, 0600)) >= 0);
    MUST((twin = dup(lines)) >= 0);
    MUST((deleted = open("deleted.txt", O_CREAT | O_TRUNC | O_RDWR, 0600)) >= 0);
    MUST(write(deleted, "only a descriptor knows me", 26) == 26 && unlink("deleted.txt") == 0);
    MUST((readonly_file = open("/etc/passwd", O_RDONLY)) >= 0 && lseek(readonly_file, 7, SEEK_SET) == 7);
    MUST((folder = open(".", O_RDONLY | O_DIRECTORY)) >= 0);
    unlink("symbolic");
    MUST(symlink("nowhere", "symbolic") == 0 && (symbolic = open("symbolic", O_PATH | O_NOFOLLOW | O_CLOEXEC)) >= 0);
    MUST((null_device = open("/dev/null", O_RDWR)) >= 0);
    MUST(dup2(null_device, 200) == 200);
    MUST((memory = memfd_create("memory", MFD_CLOEXEC | MFD_ALLOW_SEALING)) >= 0 && write(memory, "in memory", 9) == 9);
    MUST(fcntl(memory, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) == 0);
}

static void open_channels(void) {
    MUST(pipe2(pipe_ends, O_NONBLOCK) == 0 && write(pipe_ends[1], "kept in the pipe", 16) == 16);
    MUST(fcntl(pipe_ends[1], F_SETPIPE_SZ, 1 << 17) == 1 << 17);
    unlink("fifo");
    MUST(mkfifo("fifo", 0600) == 0 && (fifo = open("fifo", O_RDWR)) >= 0 && write(fifo, "kept in the fifo", 16) == 16);
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && write(pair[0], "kept in the pair", 16) == 16);
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, packets) == 0);
    MUST(write(packets[0], "one", 3) == 3 && write(packets[0], "fours", 5) == 5);
    MUST((event = eventfd(7, EFD_NONBLOCK)) >= 0);
    MUST((timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)) >= 0);
    struct itimerspec every = {{0, 20000000}, {0, 20000000}};
    MUST(timerfd_settime(timer, 0, &every, NULL) == 0);
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR2);
    MUST(sigprocmask(SIG_BLOCK, &mask, NULL) == 0 && (signals = signalfd(-1, &mask, SFD_NONBLOCK)) >= 0);
    MUST(kill(getpid(), SIGUSR2) == 0);
    MUST((queue = epoll_create1(EPOLL_CLOEXEC)) >= 0);
    struct epoll_event for_timer = {.events = EPOLLIN, .data.u64 = 0x1234567890abcdefULL}, for_event = {.events = EPOLLIN | EPOLLET, .data.u64 = 5};
    MUST(epoll_ctl(queue, EPOLL_CTL_ADD, timer, &for_timer) == 0 && epoll_ctl(queue, EPOLL_CTL_ADD, event, &for_event) == 0);
}

static void open_sockets(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    MUST((listener = socket(AF_INET, SOCK_STREAM, 0)) >= 0 && bind(listener, (void *)&address, sizeof address) == 0 && listen(listener, 8) == 0);
    MUST(getsockname(listener, (void *)&address, &length) == 0);
    MUST((near_end = socket(AF_INET, SOCK_STREAM, 0)) >= 0 && connect(near_end, (void *)&address, sizeof address) == 0);
    MUST((far_end = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0);
    int one = 1;
    MUST(setsockopt(near_end, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0);
    struct sockaddr_un path = {.sun_family = AF_UNIX, .sun_path = "listener.sock"};
    unlink(path.sun_path);
    MUST((unix_listener = socket(AF_UNIX, SOCK_STREAM, 0)) >= 0 && bind(unix_listener, (void *)&path, sizeof path) == 0 && listen(unix_listener, 4) == 0);
    MUST((unix_near = socket(AF_UNIX, SOCK_STREAM, 0)) >= 0 && connect(unix_near, (void *)&path, sizeof path) == 0);
    MUST((unix_far = accept(unix_listener, NULL, NULL)) >= 0);
    address.sin_port = 0;
    for (int i = 0; i < 2; i++) MUST((udp[i] = socket(AF_INET, SOCK_DGRAM, 0)) >= 0 && bind(udp[i], (void *)&address, sizeof address) == 0);
}

static void open_terminal(void) {
    struct winsize size = {.ws_row = 33, .ws_col = 111};
    MUST(openpty(&master, &slave, NULL, NULL, &size) == 0);
    struct termios settings;
    MUST(tcgetattr(slave, &settings) == 0);
    cfmakeraw(&settings);
    settings.c_cc[VINTR] = 7;
    MUST(tcsetattr(slave, TCSANOW, &settings) == 0);
}

/* Bytes are always in flight while this program is between two calls of it. */
static void keep_in_flight(long k, uint64_t *hash) {
    char have[FLIGHT];
    if (k > 1) {
        for (long got = 0; got < FLIGHT;) {
            struct pollfd wait = {.fd = far_end, .events = POLLIN};
            MUST(poll(&wait, 1, 10000) == 1);
            ssize_t n = read(far_end, have + got, FLIGHT - got);
            MUST(n > 0);
            got += n;
        }
        MUST(memcmp(have, flight, FLIGHT) == 0);
        MUST(read(unix_far, have, 5) == 5 && memcmp(have, "early", 5) == 0);
        MUST(read(slave, have, 6) == 6 && memcmp(have, "typed!", 6) == 0);
    }
    for (int i = 0; i < FLIGHT; i++) flight[i] = (char)mix(*hash + i);
    MUST(write(near_end, flight, FLIGHT) == FLIGHT);
    MUST(write(unix_near, "early", 5) == 5);
    MUST(write(master, "typed!", 6) == 6);
    *hash = mix(*hash ^ (uint64_t)flight[k % FLIGHT]);
}

static void look_at_files(long k, uint64_t hash) {
    char line[64], have[64];
    int n = snprintf(line, sizeof line, "%08ld %016lx\n", k, (unsigned long)hash);
    MUST(write(k % 2 ? lines : twin, line, n) == n && write(appended, line, n) == n);
    MUST(lseek(lines, 0, SEEK_CUR) == k * n && lseek(twin, 0, SEEK_CUR) == k * n);
    MUST(pread(deleted, have, 26, 0) == 26 && memcmp(have, "only a descriptor knows me", 26) == 0);
    MUST(lseek(readonly_file, 0, SEEK_CUR) == 7);
    char target[8];
    MUST(readlinkat(symbolic, "", target, sizeof target) == 7 && memcmp(target, "nowhere", 7) == 0);
    MUST(pread(memory, have, 9, 0) == 9 && memcmp(have, "in memory", 9) == 0 && fcntl(memory, F_GET_SEALS) == (F_SEAL_GROW | F_SEAL_SHRINK));
    MUST(fcntl(lines, F_GETFD) == FD_CLOEXEC && fcntl(twin, F_GETFD) == 0 && (fcntl(appended, F_GETFL) & O_APPEND));
    MUST(same_file(null_device, 200) && fcntl(pipe_ends[0], F_GETPIPE_SZ) == 1 << 17);
    struct stat about;
    MUST(fstat(deleted, &about) == 0 && about.st_nlink == 0 && fstat(appended, &about) == 0 && about.st_size == k * n);
}

static void look_at_channels(void) {
    struct epoll_event got[2];
    int ready = epoll_wait(queue, got, 2, 3000), timer_seen = 0;
    MUST(ready >= 1);
    for (int i = 0; i < ready; i++) timer_seen |= got[i].data.u64 == 0x1234567890abcdefULL;
    if (!timer_seen) {
        struct pollfd wait = {.fd = timer, .events = POLLIN};
        MUST(poll(&wait, 1, 3000) == 1);
    }
    uint64_t ticks;
    MUST(read(timer, &ticks, 8) == 8 && ticks > 0);
    struct winsize size;
    struct termios settings;
    MUST(ioctl(slave, TIOCGWINSZ, &size) == 0 && size.ws_row == 33 && size.ws_col == 111);
    MUST(tcgetattr(slave, &settings) == 0 && settings.c_cc[VINTR] == 7 && !(settings.c_lflag & ICANON));
    int value = 0;
    socklen_t length = sizeof value;
    MUST(getsockopt(near_end, IPPROTO_TCP, TCP_NODELAY, &value, &length) == 0 && value == 1);
    struct sockaddr_in a = {0}, b = {0};
    length = sizeof a;
    MUST(getsockname(near_end, (void *)&a, &length) == 0 && getpeername(far_end, (void *)&b, &length) == 0 && a.sin_port == b.sin_port);
    length = sizeof a;
    MUST(getsockname(udp[1], (void *)&a, &length) == 0 && sendto(udp[0], "datagram", 8, 0, (void *)&a, length) == 8);
    char have[16];
    MUST(recv(udp[1], have, sizeof have, 0) == 8 && memcmp(have, "datagram", 8) == 0);
}

/* Listening sockets must still take connections. */
static void connect_again(void) {
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    MUST(getsockname(listener, (void *)&address, &length) == 0);
    int there = socket(AF_INET, SOCK_STREAM, 0), here;
    MUST(there >= 0 && connect(there, (void *)&address, sizeof address) == 0 && (here = accept(listener, NULL, NULL)) >= 0);
    char have[4];
    MUST(write(there, "more", 4) == 4 && recv(here, have, 4, MSG_WAITALL) == 4 && memcmp(have, "more", 4) == 0);
    close(here);
    close(there);
}

static void last_look(long steps) {
    char have[64];
    MUST(read(pipe_ends[0], have, sizeof have) == 16 && memcmp(have, "kept in the pipe", 16) == 0);
    MUST(read(fifo, have, sizeof have) == 16 && memcmp(have, "kept in the fifo", 16) == 0);
    MUST(read(pair[1], have, sizeof have) == 16 && memcmp(have, "kept in the pair", 16) == 0);
    MUST(read(packets[1], have, sizeof have) == 3 && read(packets[1], have, sizeof have) == 5 && memcmp(have, "fours", 5) == 0);
    uint64_t count;
    MUST(read(event, &count, 8) == 8 && count == 7);
    struct signalfd_siginfo about;
    MUST(read(signals, &about, sizeof about) == sizeof about && about.ssi_signo == SIGUSR2 && about.ssi_pid == (uint32_t)getpid());
    FILE *back = fopen("lines.txt", "r");
    long k = 0, number;
    while (fgets(have, sizeof have, back)) MUST(sscanf(have, "%ld", &number) == 1 && number == ++k);
    MUST(k == steps);
}

int main(int argc, char **argv) {
    long steps = argument(argc, argv, 1, 150);
    uint64_t hash = 7;
    char cwd[4096], have[4096];
    MUST(getcwd(cwd, sizeof cwd));
    umask(027);
    open_files();
    open_channels();
    open_sockets();
    open_terminal();
    pid_t me = getpid();
    for (long k = 1; k <= steps; k++) {
        keep_in_flight(k, &hash);
        look_at_files(k, hash);
        look_at_channels();
        if (k % 8 == 0) connect_again();
        MUST(getpid() == me && getcwd(have, sizeof have) && strcmp(have, cwd) == 0);
        mode_t mask = umask(027);
        MUST(mask == 027);
        step(k, hash);
    }
    last_look(steps);
    result(hash);
    return 0;
}
