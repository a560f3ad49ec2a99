// Holds one of every kind of descriptor ("hold DIR"), or checks that it has them ("check DIR"). The numbers are fixed.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum {
    FILE_RW = 20, FILE_DUP, FILE_APPEND, FOLDER, GONE, MEMFD, PIPE_R, PIPE_W, PACKET_R, PACKET_W, FULL_R, FULL_W, EOF_R,
    EPIPE_W, FIFO, NULLDEV, UNIX_A, UNIX_B, DGRAM_A, DGRAM_B, SEQ_A, SEQ_B, LISTEN_U, CLIENT_U, SERVER_U, WAITING_U,
    CLOSED_U, SCM_A, SCM_B, LISTEN_T, CLIENT_T, SERVER_T, WAITING_T, CLOSED_T, HALF_A, HALF_B, UDP, UDP_B, EVENT, SEMA,
    TIMER, FIRED, SIGNALS, WATCH, MASTER, SLAVE, EPOLL, LOOP_A, LOOP_B, LISTEN_6, CLIENT_6, SERVER_6, NETLINK, BIG_A,
    BIG_B, SHM, PATHONLY, PERIODIC, FIFO_R, CLOSED_D,
    RAW_M, RAW_S, LAST
};
enum { LENT = 120, BIG = 3000000 };

static const char *dir;
static char path[512];
static int failures;

#define MUST(x) ({ long r_ = (x); if (r_ < 0) { printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #x, strerror(errno)); fflush(stdout); exit(1); } r_; })
#define CHECK(x) do { if (!(x)) { printf("line %d: %s (errno %s)\n", __LINE__, #x, strerror(errno)); failures++; } } while (0)

static char *in(const char *name) { snprintf(path, sizeof path, "%s/%s", dir, name); return path; }
static void to(int fd, int number) { MUST(dup2(fd, number)); if (fd != number) close(fd); }
static void pair(int a, int b, int *ends) { to(ends[0], a); to(ends[1], b); }
static struct sockaddr_un name(const char *leaf) {
    struct sockaddr_un it = {.sun_family = AF_UNIX};
    strcpy(it.sun_path, in(leaf));
    return it;
}
static unsigned char pattern(size_t at) { return at * 7 + at / 251; }

static int listen_tcp(int family) {
    int fd = MUST(socket(family, SOCK_STREAM, 0));
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    MUST(family == AF_INET ? bind(fd, (void *)&four, sizeof four) : bind(fd, (void *)&six, sizeof six));
    MUST(listen(fd, 7));
    return fd;
}
static int connect_to(int listener) {
    struct sockaddr_storage it;
    socklen_t length = sizeof it;
    MUST(getsockname(listener, (void *)&it, &length));
    int fd = MUST(socket(it.ss_family, SOCK_STREAM, 0));
    MUST(connect(fd, (void *)&it, length));
    return fd;
}
static void pass(int over, int fd, const char *bytes) {
    struct iovec part = {(void *)bytes, strlen(bytes)};
    union { struct cmsghdr head; char room[CMSG_SPACE(sizeof(int))]; } control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = &control, message.msg_controllen = sizeof control;
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET, head->cmsg_type = SCM_RIGHTS, head->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(head), &fd, sizeof fd);
    }
    MUST(sendmsg(over, &message, 0));
}
static int take(int from, const char *bytes) {
    char buffer[64] = {0};
    struct iovec part = {buffer, sizeof buffer};
    union { struct cmsghdr head; char room[CMSG_SPACE(sizeof(int))]; } control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    long got = recvmsg(from, &message, MSG_DONTWAIT);
    CHECK(got == (long)strlen(bytes) && !memcmp(buffer, bytes, got));
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    int fd = -1;
    if (head) memcpy(&fd, CMSG_DATA(head), sizeof fd);
    return fd;
}

static void hold(void) {
    int ends[2];
    to(MUST(open(in("rw"), O_RDWR | O_CREAT, 0600)), FILE_RW);
    MUST(write(FILE_RW, "0123456789", 10)); MUST(lseek(FILE_RW, 4, SEEK_SET)); MUST(dup2(FILE_RW, FILE_DUP));
    to(MUST(open(in("append"), O_WRONLY | O_APPEND | O_CREAT, 0600)), FILE_APPEND);
    MUST(write(FILE_APPEND, "known", 5));
    to(MUST(open(dir, O_RDONLY | O_DIRECTORY)), FOLDER);
    to(MUST(open(dir, O_PATH)), PATHONLY);
    to(MUST(open(in("gone"), O_RDWR | O_CREAT, 0600)), GONE);
    MUST(write(GONE, "deleted", 7)); MUST(unlink(in("gone")));
    to(MUST(memfd_create("mem", 0)), MEMFD); MUST(write(MEMFD, "memory", 6));
    snprintf(path, sizeof path, "/dev/shm/slackwater-test-%d", getpid());
    to(MUST(open(path, O_RDWR | O_CREAT, 0600)), SHM); MUST(write(SHM, "shared", 6)); MUST(unlink(path));
    MUST(pipe(ends)); pair(PIPE_R, PIPE_W, ends); MUST(write(PIPE_W, "in the pipe", 11));
    MUST(fcntl(PIPE_R, F_SETFL, O_NONBLOCK));
    MUST(pipe2(ends, O_DIRECT)); pair(PACKET_R, PACKET_W, ends); MUST(write(PACKET_W, "one", 3)); MUST(write(PACKET_W, "three", 5));
    MUST(pipe(ends)); pair(FULL_R, FULL_W, ends); MUST(fcntl(FULL_W, F_SETPIPE_SZ, 131072));
    for (size_t at = 0; at < 131072; at++) { unsigned char byte = pattern(at); MUST(write(FULL_W, &byte, 1)); }
    MUST(pipe(ends)); to(ends[0], EOF_R); MUST(write(ends[1], "last", 4)); close(ends[1]);
    MUST(pipe(ends)); to(ends[1], EPIPE_W); close(ends[0]);
    MUST(mkfifo(in("fifo"), 0600)); to(MUST(open(path, O_RDWR)), FIFO); MUST(write(FIFO, "fifo", 4));
    to(MUST(open(path, O_RDONLY | O_NONBLOCK)), FIFO_R);
    to(MUST(open("/dev/null", O_RDWR)), NULLDEV);
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends)); pair(UNIX_A, UNIX_B, ends); MUST(write(UNIX_A, "to b", 4)); MUST(write(UNIX_B, "to a", 4));
    MUST(shutdown(UNIX_A, SHUT_WR));
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends)); pair(DGRAM_A, DGRAM_B, ends); MUST(write(DGRAM_A, "a", 1)); MUST(write(DGRAM_A, "bc", 2));
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends)); pair(SEQ_A, SEQ_B, ends); MUST(write(SEQ_A, "s", 1)); MUST(write(SEQ_A, "eq", 2));
    struct sockaddr_un address = name("sock");
    to(MUST(socket(AF_UNIX, SOCK_STREAM, 0)), LISTEN_U); MUST(bind(LISTEN_U, (void *)&address, sizeof address)); MUST(listen(LISTEN_U, 5));
    to(MUST(socket(AF_UNIX, SOCK_STREAM, 0)), CLIENT_U); MUST(connect(CLIENT_U, (void *)&address, sizeof address));
    to(MUST(accept(LISTEN_U, 0, 0)), SERVER_U); MUST(write(CLIENT_U, "hello", 5));
    to(MUST(socket(AF_UNIX, SOCK_STREAM, 0)), WAITING_U); MUST(connect(WAITING_U, (void *)&address, sizeof address));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends)); to(ends[0], CLOSED_U); MUST(write(ends[1], "bye", 3)); close(ends[1]);
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends)); to(ends[0], CLOSED_D); MUST(write(ends[1], "bye", 3)); close(ends[1]);
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends)); pair(SCM_A, SCM_B, ends);
    MUST(pipe(ends)); MUST(write(ends[1], "inner", 5)); pass(SCM_A, ends[0], "x"); pass(SCM_A, FILE_RW, "yz"); close(ends[0]); close(ends[1]);
    int yes = 1;
    to(listen_tcp(AF_INET), LISTEN_T); to(connect_to(LISTEN_T), CLIENT_T); to(MUST(accept(LISTEN_T, 0, 0)), SERVER_T);
    MUST(setsockopt(CLIENT_T, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes)); MUST(fcntl(SERVER_T, F_SETFL, O_NONBLOCK));
    MUST(write(CLIENT_T, "client", 6)); MUST(write(SERVER_T, "server", 6));
    to(connect_to(LISTEN_T), CLOSED_T); int other = MUST(accept(LISTEN_T, 0, 0)); MUST(write(other, "closed", 6)); close(other);
    to(connect_to(LISTEN_T), HALF_A); to(MUST(accept(LISTEN_T, 0, 0)), HALF_B); MUST(write(HALF_A, "half", 4)); MUST(shutdown(HALF_A, SHUT_WR));
    to(connect_to(LISTEN_T), BIG_A); to(MUST(accept(LISTEN_T, 0, 0)), BIG_B);
    to(connect_to(LISTEN_T), WAITING_T);
    to(listen_tcp(AF_INET6), LISTEN_6); to(connect_to(LISTEN_6), CLIENT_6); to(MUST(accept(LISTEN_6, 0, 0)), SERVER_6); MUST(write(CLIENT_6, "six", 3));
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof four;
    to(MUST(socket(AF_INET, SOCK_DGRAM, 0)), UDP); MUST(bind(UDP, (void *)&four, sizeof four)); MUST(getsockname(UDP, (void *)&four, &length));
    to(MUST(socket(AF_INET, SOCK_DGRAM, 0)), UDP_B); MUST(connect(UDP_B, (void *)&four, sizeof four)); MUST(write(UDP_B, "u1", 2)); MUST(write(UDP_B, "udp2", 4));
    to(MUST(eventfd(42, 0)), EVENT); to(MUST(eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK)), SEMA);
    to(MUST(timerfd_create(CLOCK_MONOTONIC, 0)), TIMER);
    struct itimerspec later = {.it_value = {1000, 0}, .it_interval = {5, 6}}; MUST(timerfd_settime(TIMER, 0, &later, 0));
    to(MUST(timerfd_create(CLOCK_MONOTONIC, 0)), FIRED);
    struct itimerspec soon = {.it_value = {0, 1}}; MUST(timerfd_settime(FIRED, 0, &soon, 0)); poll(&(struct pollfd){FIRED, POLLIN, 0}, 1, -1);
    to(MUST(timerfd_create(CLOCK_MONOTONIC, 0)), PERIODIC);
    struct itimerspec often = {.it_value = {0, 1}, .it_interval = {60, 0}}; MUST(timerfd_settime(PERIODIC, 0, &often, 0)); poll(&(struct pollfd){PERIODIC, POLLIN, 0}, 1, -1);
    sigset_t set; sigemptyset(&set); sigaddset(&set, SIGUSR1); to(MUST(signalfd(-1, &set, 0)), SIGNALS);
    to(MUST(inotify_init()), WATCH); MUST(inotify_add_watch(WATCH, in("rw"), IN_MODIFY)); MUST(inotify_rm_watch(WATCH, 1)); MUST(read(WATCH, path, sizeof path)); MUST(inotify_add_watch(WATCH, dir, IN_CREATE));
    to(MUST(posix_openpt(O_RDWR | O_NOCTTY)), MASTER); MUST(unlockpt(MASTER)); to(MUST(open(ptsname(MASTER), O_RDWR | O_NOCTTY)), SLAVE);
    struct winsize window = {11, 22, 33, 44}; MUST(ioctl(SLAVE, TIOCSWINSZ, &window));
    struct termios termios; MUST(tcgetattr(SLAVE, &termios)); termios.c_lflag &= ~ECHO; MUST(tcsetattr(SLAVE, TCSANOW, &termios));
    MUST(write(MASTER, "one\nx\177two\nend\4\4ha", 17)); poll(&(struct pollfd){SLAVE, POLLIN, 0}, 1, -1);
    MUST(write(SLAVE, "out\n", 4));
    to(MUST(posix_openpt(O_RDWR | O_NOCTTY)), RAW_M); MUST(unlockpt(RAW_M)); to(MUST(open(ptsname(RAW_M), O_RDWR | O_NOCTTY)), RAW_S);
    MUST(tcgetattr(RAW_S, &termios)); cfmakeraw(&termios); MUST(tcsetattr(RAW_S, TCSANOW, &termios)); MUST(write(RAW_M, "raw\r\n\3\4\177", 8));
    to(MUST(socket(AF_NETLINK, SOCK_RAW, 0)), NETLINK); struct sockaddr_nl nl = {.nl_family = AF_NETLINK}; MUST(bind(NETLINK, (void *)&nl, sizeof nl));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends)); pair(LOOP_A, LOOP_B, ends);
    to(MUST(epoll_create1(0)), EPOLL);
    MUST(epoll_ctl(EPOLL, EPOLL_CTL_ADD, EVENT, &(struct epoll_event){EPOLLIN, {.u64 = 0x1122334455667788}}));
    MUST(dup2(LOOP_A, LENT)); MUST(epoll_ctl(EPOLL, EPOLL_CTL_ADD, LENT, &(struct epoll_event){EPOLLIN, {.u64 = 7}})); close(LENT);
}

static void got(int fd, const char *bytes) {
    char buffer[256];
    struct pollfd ready = {fd, POLLIN, 0};
    if (poll(&ready, 1, 0) <= 0) { printf("descriptor %d is not readable\n", fd); failures++; return; }
    long length = read(fd, buffer, sizeof buffer);
    if (length != (long)strlen(bytes) || memcmp(buffer, bytes, length)) { printf("descriptor %d: %ld bytes: %.*s instead of %s\n", fd, length, (int)length, buffer, bytes); failures++; }
}
static int gone(int fd) { char byte; return read(fd, &byte, 1) == 0; }
static int option(int fd, int level, int name) { int it = -1; socklen_t length = sizeof it; getsockopt(fd, level, name, &it, &length); return it; }

static void check_files(void) {
    char buffer[64]; struct stat st;
    CHECK(lseek(FILE_RW, 0, SEEK_CUR) == 4); got(FILE_RW, "456789"); CHECK(lseek(FILE_DUP, 0, SEEK_CUR) == 10);
    CHECK(fstat(FILE_APPEND, &st) == 0 && st.st_size == 5); CHECK(fcntl(FILE_APPEND, F_GETFL) & O_APPEND);
    CHECK(fstat(FOLDER, &st) == 0 && S_ISDIR(st.st_mode)); CHECK(fcntl(PATHONLY, F_GETFL) & O_PATH);
    CHECK(lseek(GONE, 0, SEEK_CUR) == 7 && pread(GONE, buffer, 64, 0) == 7 && !memcmp(buffer, "deleted", 7));
    CHECK(pread(MEMFD, buffer, 64, 0) == 6 && !memcmp(buffer, "memory", 6));
    CHECK(pread(SHM, buffer, 64, 0) == 6 && !memcmp(buffer, "shared", 6));
    got(PIPE_R, "in the pipe"); CHECK(read(PIPE_R, buffer, 1) < 0 && errno == EAGAIN); CHECK(!(fcntl(PIPE_W, F_GETFL) & O_NONBLOCK));
    got(PACKET_R, "one"); got(PACKET_R, "three"); CHECK(fcntl(PACKET_W, F_GETFL) & O_DIRECT);
    CHECK(fcntl(FULL_R, F_GETPIPE_SZ) == 131072);
    for (size_t at = 0; at < 131072; at++) { unsigned char byte; if (read(FULL_R, &byte, 1) != 1 || byte != pattern(at)) { CHECK(!"full pipe"); break; } }
    got(EOF_R, "last"); CHECK(gone(EOF_R));
    signal(SIGPIPE, SIG_IGN); CHECK(write(EPIPE_W, "x", 1) < 0 && errno == EPIPE);
    got(FIFO, "fifo"); CHECK(read(FIFO_R, buffer, 1) < 0 && errno == EAGAIN); CHECK(write(NULLDEV, "x", 1) == 1);
}
static void check_unix(void) {
    got(UNIX_A, "to a"); got(UNIX_B, "to b"); CHECK(gone(UNIX_B)); CHECK(write(UNIX_A, "x", 1) < 0 && errno == EPIPE);
    got(DGRAM_B, "a"); got(DGRAM_B, "bc"); got(SEQ_B, "s"); got(SEQ_B, "eq");
    CHECK(write(DGRAM_B, "r", 1) == 1); got(DGRAM_A, "r");
    got(SERVER_U, "hello"); CHECK(write(SERVER_U, "back", 4) == 4); got(CLIENT_U, "back");
    struct sockaddr_un address = {0}; socklen_t length = sizeof address;
    CHECK(getpeername(CLIENT_U, (void *)&address, &length) == 0 && !strcmp(address.sun_path, in("sock")));
    int fd = accept(LISTEN_U, 0, 0); CHECK(fd >= 0); CHECK(write(WAITING_U, "w", 1) == 1); got(fd, "w"); close(fd);
    got(CLOSED_U, "bye"); CHECK(gone(CLOSED_U));
    got(CLOSED_D, "bye"); CHECK(write(CLOSED_D, "x", 1) < 0 && errno == ECONNREFUSED);
    fd = take(SCM_B, "x"); got(fd, "inner"); CHECK(gone(fd)); close(fd);
    fd = take(SCM_B, "yz"); CHECK(fd >= 0 && lseek(fd, 0, SEEK_CUR) == lseek(FILE_RW, 0, SEEK_CUR)); close(fd);
}
static void check_inet(void) {
    got(CLIENT_T, "server"); got(SERVER_T, "client"); CHECK(option(CLIENT_T, IPPROTO_TCP, TCP_NODELAY) == 1); CHECK(option(SERVER_T, IPPROTO_TCP, TCP_NODELAY) == 0);
    CHECK(fcntl(SERVER_T, F_GETFL) & O_NONBLOCK);
    got(CLOSED_T, "closed"); CHECK(gone(CLOSED_T)); got(HALF_B, "half"); CHECK(gone(HALF_B)); CHECK(write(HALF_B, "still", 5) == 5); got(HALF_A, "still");
    got(SERVER_6, "six"); CHECK(write(SERVER_6, "6", 1) == 1); got(CLIENT_6, "6");
    int fd = accept(LISTEN_T, 0, 0); CHECK(fd >= 0); CHECK(write(WAITING_T, "w", 1) == 1); got(fd, "w"); close(fd);
    fd = connect_to(LISTEN_T); close(fd);
    got(UDP, "u1"); got(UDP, "udp2"); CHECK(write(UDP_B, "u3", 2) == 2); got(UDP, "u3");
    struct sockaddr_nl nl; socklen_t length = sizeof nl; CHECK(getsockname(NETLINK, (void *)&nl, &length) == 0 && nl.nl_pid != 0);
}
static void check_others(void) {
    uint64_t count; struct itimerspec left; char buffer[64]; struct winsize window; struct termios termios;
    struct epoll_event events[4];
    CHECK(epoll_wait(EPOLL, events, 4, 0) == 1 && events[0].data.u64 == 0x1122334455667788);
    CHECK(write(LOOP_B, "!", 1) == 1); CHECK(epoll_wait(EPOLL, events, 4, 0) == 2);
    CHECK(fcntl(LENT, F_GETFD) < 0);
    CHECK(read(EVENT, &count, 8) == 8 && count == 42); CHECK(read(SEMA, &count, 8) == 8 && count == 1);
    CHECK(timerfd_gettime(TIMER, &left) == 0 && left.it_value.tv_sec > 900 && left.it_value.tv_sec <= 1000 && left.it_interval.tv_sec == 5);
    CHECK(read(FIRED, &count, 8) == 8 && count == 1);
    CHECK(read(PERIODIC, &count, 8) == 8 && count >= 1); CHECK(timerfd_gettime(PERIODIC, &left) == 0 && left.it_value.tv_sec + left.it_value.tv_nsec > 0);
    sigset_t set; sigemptyset(&set); sigaddset(&set, SIGUSR1); sigprocmask(SIG_BLOCK, &set, 0); raise(SIGUSR1);
    struct signalfd_siginfo info; CHECK(read(SIGNALS, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR1);
    close(MUST(open(in("new"), O_CREAT | O_RDWR, 0600))); CHECK(read(WATCH, buffer, 64) > 0 && ((struct inotify_event *)buffer)->wd == 2);
    CHECK(ioctl(SLAVE, TIOCGWINSZ, &window) == 0 && window.ws_row == 11 && window.ws_ypixel == 44);
    CHECK(tcgetattr(SLAVE, &termios) == 0 && !(termios.c_lflag & ECHO) && (termios.c_oflag & OPOST)); got(MASTER, "out\r\n");
    got(SLAVE, "one\n"); got(SLAVE, "two\n"); got(SLAVE, "end"); got(SLAVE, ""); CHECK(poll(&(struct pollfd){SLAVE, POLLIN, 0}, 1, 0) == 0);
    CHECK(write(MASTER, "lf\nin\n", 6) == 6); got(SLAVE, "half\n"); got(SLAVE, "in\n"); got(RAW_S, "raw\r\n\3\4\177");
    CHECK(fcntl(LAST, F_GETFD) < 0 && fcntl(500, F_GETFD) < 0 && fcntl(3, F_GETFD) < 0);
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    dir = arguments[2];
    if (!strcmp(arguments[1], "hold")) {
        hold();
        MUST(write(1, "ready\n", 6));
        pause();
    }
    check_others(); check_files(); check_unix(); check_inet();
    printf("%d failures\n", failures);
    return failures != 0;
}
