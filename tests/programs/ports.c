/* ports STEPS: two servers whose connections are closed by the server first, so that the kernel remembers them for a minute
 * (TIME_WAIT) and keeps the servers' ports for them. One of these connections came from the port on which the second server
 * listens since: nobody else can be had to disown it. */
#include "judge.h"
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

static struct sockaddr_in here(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static int port_of(int fd) {
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    MUST(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    return ntohs(address.sin_port);
}

static int bound(int port) {
    struct sockaddr_in address = here(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

/* Connects `client` to the server, asks, is answered; the server hangs up first. */
static uint64_t ask(int client, int server, uint64_t question) {
    struct sockaddr_in address = here(port_of(server));
    uint64_t got = 0;
    MUST(connect(client, (struct sockaddr *)&address, sizeof address) == 0);
    int accepted = accept(server, NULL, NULL);
    MUST(accepted >= 0 && write(client, &question, sizeof question) == sizeof question);
    MUST(read(accepted, &got, sizeof got) == sizeof got && got == question);
    got = mix(got);
    MUST(write(accepted, &got, sizeof got) == sizeof got && close(accepted) == 0);
    MUST(read(client, &question, sizeof question) == sizeof question && question == got);
    MUST(read(client, &question, sizeof question) == 0 && close(client) == 0);
    return got;
}

int main(int argc, char **argv) {
    long steps = argument(argc, argv, 1, 200);
    uint64_t hash = 37;
    int low = open("/dev/null", O_RDWR | O_CLOEXEC), one = bound(0), client = bound(0), two;
    int port = port_of(client);
    MUST(listen(one, 4) == 0);
    hash = ask(client, one, hash);
    /* The second has the lower number: it is the first to have its port back. */
    two = bound(port);
    MUST(listen(two, 4) == 0 && dup2(two, low) == low && close(two) == 0);
    for (long k = 1; k <= steps; k++) {
        hash = ask(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), k % 2 ? one : low, hash);
        MUST(port_of(low) == port);
        usleep(10000);
        step(k, hash);
    }
    result(hash);
    return 0;
}
