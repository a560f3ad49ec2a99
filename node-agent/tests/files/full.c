// Two TCP connections that are full both ways, inside one process. After SIGUSR1 it reads all and compares.
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ENDS = 4 };

static unsigned char pattern(int end, size_t at) { return at * 31 + at / 65537 + end; }

static size_t fill(int fd, int end) {
    static unsigned char chunk[70001];
    size_t sent = 0;
    // Until nothing has moved for a while: the kernel enlarges buffers as it goes.
    for (int idle = 0; idle < 20;) {
        for (size_t at = 0; at < sizeof chunk; at++) chunk[at] = pattern(end, sent + at);
        long written = send(fd, chunk, sizeof chunk, MSG_DONTWAIT);
        if (written > 0) sent += written, idle = 0;
        else poll(0, 0, 5), idle++;
    }
    return sent;
}

static int same(int fd, int end, size_t expected) {
    static unsigned char chunk[70001];
    size_t got = 0;
    while (got < expected) {
        long length = read(fd, chunk, sizeof chunk);
        if (length <= 0) return 0;
        for (long at = 0; at < length; at++)
            if (chunk[at] != pattern(end, got + at)) return 0;
        got += length;
    }
    int more = 0;
    return got == expected && ioctl(fd, FIONREAD, &more) == 0 && more == 0;
}

int main(int count, char **arguments) {
    sigset_t set;
    int signal, ends[ENDS];
    size_t sent[ENDS];
    sigemptyset(&set), sigaddset(&set, SIGUSR1), sigprocmask(SIG_BLOCK, &set, 0);
    if (count == 2) {
        // After a restart: the numbers are as they were.
        for (int end = 0; end < ENDS; end++) ends[end] = 20 + end, sent[end] = strtoul(arguments[1], &arguments[1], 10);
    } else {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t length = sizeof address;
        int listener = socket(AF_INET, SOCK_STREAM, 0);
        bind(listener, (void *)&address, length), listen(listener, 5), getsockname(listener, (void *)&address, &length);
        for (int end = 0; end < ENDS; end += 2) {
            int client = socket(AF_INET, SOCK_STREAM, 0);
            if (connect(client, (void *)&address, length)) return 1;
            ends[end] = dup2(client, 20 + end), ends[end + 1] = dup2(accept(listener, 0, 0), 21 + end);
            close(client);
        }
        close(3), close(4), close(5);
        for (int end = 0; end < ENDS; end++) sent[end] = end < 3 ? fill(ends[end], end) : 0;
        printf("%zu %zu %zu %zu\n", sent[0], sent[1], sent[2], sent[3]);
        fflush(stdout);
        sigwait(&set, &signal);
    }
    int good = 1;
    for (int end = 0; end < ENDS; end++) good &= same(ends[end ^ 1], end, sent[end]);
    puts(good ? "equal" : "different");
    return !good;
}
