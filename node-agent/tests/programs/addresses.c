/* addresses HOW [ADDRESS …]: sockets of a program that remembers addresses. Each line says what it has seen. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
    struct sockaddr_storage room;
} Name;

static void must(int holds, const char *what) {
    if (!holds) {
        printf("FAILED %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static socklen_t named(Name *name, const char *address, int port) {
    memset(name, 0, sizeof *name);
    if (strchr(address, ':')) {
        name->v6.sin6_family = AF_INET6;
        name->v6.sin6_port = htons(port);
        must(inet_pton(AF_INET6, address, &name->v6.sin6_addr) == 1, "an IPv6 address");
        return sizeof name->v6;
    }
    name->v4.sin_family = AF_INET;
    name->v4.sin_port = htons(port);
    must(inet_pton(AF_INET, address, &name->v4.sin_addr) == 1, "an IPv4 address");
    return sizeof name->v4;
}

static int port_of(const Name *name) { return ntohs(name->any.sa_family == AF_INET ? name->v4.sin_port : name->v6.sin6_port); }

static const char *text(const Name *name) {
    static char texts[4][64];
    static int turn;
    char address[INET6_ADDRSTRLEN], *out = texts[turn++ % 4];
    const void *bytes = name->any.sa_family == AF_INET ? (void *)&name->v4.sin_addr : (void *)&name->v6.sin6_addr;
    must(inet_ntop(name->any.sa_family, bytes, address, sizeof address) != NULL, "an address");
    sprintf(out, "%s", address);
    return out;
}

static Name own(int fd) {
    Name name = {0};
    socklen_t len = sizeof name;
    must(!getsockname(fd, &name.any, &len), "getsockname");
    return name;
}

static Name peer(int fd) {
    Name name = {0};
    socklen_t len = sizeof name;
    must(!getpeername(fd, &name.any, &len), "getpeername");
    return name;
}

static int bound(int type, const char *address, int port) {
    Name name;
    socklen_t len = named(&name, address, port);
    int fd = socket(name.any.sa_family, type, 0);
    must(fd >= 0 && !bind(fd, &name.any, len), "bind");
    return fd;
}

static int connected(int type, const char *from, const char *to, int port) {
    Name name;
    socklen_t len = named(&name, to, port);
    int fd = from ? bound(type, from, 0) : socket(name.any.sa_family, type, 0);
    must(!connect(fd, &name.any, len), "connect");
    return fd;
}

/* tcp SERVER CLIENT: both bound to old addresses; the client may be "-". */
static void tcp(const char *server, const char *client) {
    int listener = bound(SOCK_STREAM, server, 0);
    must(!listen(listener, 4), "listen");
    Name at = own(listener);
    printf("listens %s\n", text(&at));
    for (int four = 0; four < 2; four++) {
        int fd = connected(SOCK_STREAM, *client == '-' ? NULL : client, server, port_of(&at));
        Name caller = {0}, local = own(fd), remote = peer(fd);
        socklen_t len = sizeof caller;
        int accepted = four ? accept4(listener, &caller.any, &len, SOCK_CLOEXEC) : accept(listener, &caller.any, &len);
        must(accepted >= 0, "accept");
        Name also = peer(accepted), mine = own(accepted);
        printf("client %s -> %s\n", text(&local), text(&remote));
        printf("accepted %s (%u), getpeername %s, own %s\n", text(&caller), len, text(&also), text(&mine));
        must(port_of(&caller) == port_of(&local) && port_of(&also) == port_of(&local), "the client's port");
        must(port_of(&remote) == port_of(&at) && port_of(&mine) == port_of(&at), "the server's port");
        must(send(fd, "x", 1, 0) == 1, "send");
        char byte;
        must(recv(accepted, &byte, 1, 0) == 1 && byte == 'x', "recv");
        close(fd);
        close(accepted);
    }
}

/* udp ONE OTHER: datagrams, and messages with what must go through untouched: two buffers, a control message, flags. */
static void udp(const char *one, const char *other) {
    int a = bound(SOCK_DGRAM, one, 0), b = bound(SOCK_DGRAM, other, 0), on = 1;
    int six = strchr(one, ':') != NULL;
    must(!setsockopt(b, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_RECVHOPLIMIT : IP_RECVTTL, &on, sizeof on), "ask for TTL");
    Name to, from = {0}, at = own(a);
    socklen_t len = named(&to, other, (at = own(b), port_of(&at)));
    char bytes[64];
    must(sendto(a, "sendto", 6, 0, &to.any, len) == 6, "sendto");
    len = sizeof from;
    must(recvfrom(b, bytes, sizeof bytes, 0, &from.any, &len) == 6 && !memcmp(bytes, "sendto", 6), "recvfrom");
    at = own(a);
    must(port_of(&from) == port_of(&at), "the sender's port");
    printf("recvfrom %s (%u)\n", text(&from), len);

    struct iovec parts[2] = {{"two ", 4}, {"parts", 5}}, whole = {bytes, sizeof bytes};
    struct msghdr message = {.msg_name = &to, .msg_namelen = six ? sizeof to.v6 : sizeof to.v4, .msg_iov = parts, .msg_iovlen = 2};
    struct msghdr before = message;
    must(sendmsg(a, &message, MSG_NOSIGNAL) == 9 && !memcmp(&before, &message, sizeof before), "sendmsg");
    char control[128];
    memset(&from, 0, sizeof from);
    struct msghdr got = {&from, sizeof from, &whole, 1, control, sizeof control, 0};
    must(recvmsg(b, &got, 0) == 9 && !memcmp(bytes, "two parts", 9), "recvmsg");
    struct cmsghdr *first = CMSG_FIRSTHDR(&got);
    printf("recvmsg %s (%u), control %d, flags %d\n", text(&from), got.msg_namelen, first ? first->cmsg_type : -1, got.msg_flags);

    enum { MANY = 20 };
    struct mmsghdr out[MANY], in[MANY];
    struct iovec buffers[MANY];
    static char texts[MANY][8], room[MANY][8];
    static Name names[MANY];
    for (int i = 0; i < MANY; i++) {
        sprintf(texts[i], "%d", i);
        buffers[i] = (struct iovec){texts[i], strlen(texts[i])};
        out[i] = (struct mmsghdr){{.msg_name = &to, .msg_namelen = before.msg_namelen, .msg_iov = &buffers[i], .msg_iovlen = 1}, 99};
    }
    must(sendmmsg(a, out, MANY, 0) == MANY, "sendmmsg");
    for (int i = 0; i < MANY; i++) {
        must(out[i].msg_len == strlen(texts[i]), "length of what sendmmsg has sent");
        buffers[i] = (struct iovec){room[i], sizeof room[i]};
        in[i] = (struct mmsghdr){{.msg_name = &names[i], .msg_namelen = sizeof names[i], .msg_iov = &buffers[i], .msg_iovlen = 1}, 0};
    }
    struct timespec time = {5, 0};
    must(recvmmsg(b, in, MANY, 0, &time) == MANY, "recvmmsg");
    for (int i = 0; i < MANY; i++) {
        must(in[i].msg_len == strlen(texts[i]) && !memcmp(room[i], texts[i], in[i].msg_len), "what recvmmsg has received");
        must(!strcmp(text(&names[i]), text(&from)) && port_of(&names[i]) == port_of(&from), "the senders of recvmmsg");
    }
    printf("recvmmsg %s (%u)\n", text(&names[MANY - 1]), in[MANY - 1].msg_hdr.msg_namelen);

    must(!connect(a, &to.any, before.msg_namelen), "connect");
    struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    must(sendto(a, "connected", 9, 0, NULL, 0) == 9 && recv(b, bytes, sizeof bytes, 0) == 9, "send without a name");
    at = peer(a);
    printf("connected to %s\n", text(&at));
    must(!connect(a, &nobody, sizeof nobody), "dissolve");
    len = sizeof at;
    must(getpeername(a, &at.any, &len) == -1 && errno == ENOTCONN, "nobody is connected to");
}

static void hex(const char *what, const unsigned char *bytes, unsigned room, unsigned len) {
    printf("%s (%u of %u):", what, room, len);
    for (unsigned i = 0; i < 8; i++) printf(" %02x", bytes[i]);
    printf("\n");
}

/* Names that there is not room for. The port is left out: it is another one in each run. */
static void shortly(const char *server, const char *client) {
    int listener = bound(SOCK_STREAM, server, 0), a = bound(SOCK_DGRAM, client, 0), b = bound(SOCK_DGRAM, server, 0);
    must(!listen(listener, 16), "listen");
    Name at = own(listener), to;
    for (unsigned room = 0; room <= 8; room += 2) {
        unsigned char name[16];
        int fd = connected(SOCK_STREAM, client, server, port_of(&at));
        for (int call = 0; call < 4; call++) {
            static const char *calls[] = {"accept", "getpeername", "getsockname", "recvfrom"};
            socklen_t len = room;
            int ok = -1, accepted = -1;
            memset(name, 0xee, sizeof name);
            if (call == 0) ok = accepted = accept(listener, (void *)name, &len);
            if (call == 1) ok = getpeername(fd, (void *)name, &len);
            if (call == 2) ok = getsockname(fd, (void *)name, &len);
            if (call == 3) {
                char byte;
                Name where = own(b);
                socklen_t bytes = named(&to, server, port_of(&where));
                must(sendto(a, "x", 1, 0, &to.any, bytes) == 1, "sendto");
                ok = recvfrom(b, &byte, 1, 0, (void *)name, &len);
            }
            must(ok >= 0, calls[call]);
            if (room >= 4) name[2] = name[3] = 0;
            hex(calls[call], name, room, len);
            if (accepted >= 0) close(accepted);
        }
        close(fd);
    }
}

enum { BYTES = 1 << 26 };
static int waits_on, cleaned, waiter;
static void *buffer;
static void clean(void *argument) { cleaned = *(int *)argument; }

static void *waits(void *how) {
    int number = 1 + *(int *)how;
    static Name name;
    socklen_t len = sizeof name;
    char bytes[8];
    struct iovec whole = {bytes, sizeof bytes};
    struct msghdr message = {&name, sizeof name, &whole, 1, NULL, 0, 0};
    struct mmsghdr messages = {message, 0};
    __atomic_store_n(&waiter, gettid(), __ATOMIC_RELEASE);
    pthread_cleanup_push(clean, &number);
    switch (*(int *)how) {
    case 0: accept(waits_on, &name.any, &len); break;
    case 1: accept4(waits_on, &name.any, &len, 0); break;
    case 2: recvfrom(waits_on, bytes, sizeof bytes, 0, &name.any, &len); break;
    case 3: recvmsg(waits_on, &message, 0); break;
    case 4: recvmmsg(waits_on, &messages, 1, 0, NULL); break;
    case 5: len = 4, recvfrom(waits_on, bytes, sizeof bytes, 0, &name.any, &len); break;
    case 6: sendto(waits_on, buffer, BYTES, 0, NULL, 0); break;
    case 7: whole = (struct iovec){buffer, BYTES}, message.msg_name = NULL, message.msg_namelen = 0, sendmsg(waits_on, &message, 0); break;
    case 8: whole = (struct iovec){buffer, BYTES}, messages.msg_hdr.msg_name = NULL, messages.msg_hdr.msg_namelen = 0, sendmmsg(waits_on, &messages, 1, 0); break;
    }
    pthread_cleanup_pop(0);
    return NULL;
}

static void until_it_waits_in(int number) {
    static const char *format = "/proc/self/task/%d/syscall";
    char path[64], text[32];
    for (;;) {
        int tid = __atomic_load_n(&waiter, __ATOMIC_ACQUIRE);
        sprintf(path, format, tid);
        FILE *file = tid ? fopen(path, "r") : NULL;
        int there = file && fgets(text, sizeof text, file) && atoi(text) == number;
        if (file) fclose(file);
        if (there) return;
        usleep(500);
    }
}

/* Threads that are cancelled while they wait. */
static void cancel(const char *address) {
    static const int numbers[] = {SYS_accept, SYS_accept4, SYS_recvfrom, SYS_recvmsg, SYS_recvmmsg, SYS_recvfrom, SYS_sendto,
                                  SYS_sendmsg, SYS_sendmmsg};
    buffer = calloc(1, BYTES);
    for (int how = 0; how < 9; how++) {
        int stream = how < 2 || how > 5, listener = bound(stream ? SOCK_STREAM : SOCK_DGRAM, address, 0);
        waits_on = listener;
        if (stream) must(!listen(listener, 1), "listen");
        Name at = own(listener);
        if (how > 5) waits_on = connected(SOCK_STREAM, NULL, address, port_of(&at));
        pthread_t thread;
        cleaned = waiter = 0;
        must(!pthread_create(&thread, NULL, waits, &how), "pthread_create");
        until_it_waits_in(numbers[how]);
        void *result = NULL;
        must(!pthread_cancel(thread) && !pthread_join(thread, &result), "cancel");
        printf("%d: cancelled %d, cleaned %d\n", how, result == PTHREAD_CANCELED, cleaned == how + 1);
        close(listener);
        if (waits_on != listener) close(waits_on);
    }
}

/* All the ways to fail, and families that are not ours. */
static void errors(void) {
    Name name;
    socklen_t len = named(&name, "127.0.0.1", 0);
    errno = 0;
    printf("bind %d", bind(-1, &name.any, len));
    printf(" %d\n", errno);
    printf("connect %d", connect(0, &name.any, len));
    printf(" %d\n", errno);
    printf("sendto %ld", (long)sendto(-1, "", 1, 0, &name.any, len));
    printf(" %d\n", errno);
    struct msghdr message = {&name, len};
    printf("sendmsg %ld", (long)sendmsg(-1, &message, 0));
    printf(" %d\n", errno);
    struct mmsghdr messages = {message, 0};
    printf("sendmmsg %d", sendmmsg(-1, &messages, 1, 0));
    printf(" %d\n", errno);
    printf("accept %d", accept(-1, &name.any, &len));
    printf(" %d\n", errno);
    printf("getsockname %d", getsockname(-1, &name.any, &len));
    printf(" %d\n", errno);
    printf("recvmmsg %d", recvmmsg(-1, &messages, 1, 0, NULL));
    printf(" %d\n", errno);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    printf("short bind %d", bind(fd, &name.any, 7));
    printf(" %d\n", errno);
    printf("no length %d", getsockname(fd, &name.any, NULL));
    printf(" %d\n", errno);
    printf("no name %d", connect(fd, NULL, 16));
    printf(" %d\n", errno);
    char byte;
    printf("recvfrom %ld", (long)recvfrom(fd, &byte, 1, MSG_DONTWAIT, &name.any, &len));
    printf(" %d\n", errno);

    int local = socket(AF_UNIX, SOCK_DGRAM, 0), other = socket(AF_UNIX, SOCK_DGRAM, 0);
    Name path = {.local = {AF_UNIX, "\0slackwater addresses, a long abstract name of a socket"}}, got = {0};
    len = sizeof path.local;
    must(!bind(local, &path.any, len), "bind");
    must(!bind(other, &path.any, sizeof(sa_family_t)), "autobind");
    must(sendto(other, "x", 1, 0, &path.any, len) == 1, "sendto");
    len = 20;
    must(recvfrom(local, &byte, 1, 0, &got.any, &len) == 1, "recvfrom");
    printf("unix %d (%u)\n", got.any.sa_family, len);
}

/* one CALLS: nanoseconds of a call. */
static void measure(const char *address, long calls) {
    struct timespec begin, end;
    int a = bound(SOCK_DGRAM, address, 0), b = bound(SOCK_DGRAM, address, 0);
    Name name = own(b);
    socklen_t len = named(&name, address, port_of(&name));
    char byte = 0;
    for (int what = 0; what < 2; what++) {
        double best = 1e9;
        for (int round = 0; round < 1000; round++) {
            clock_gettime(CLOCK_MONOTONIC, &begin);
            for (long call = 0; call < calls; call++) {
                if (what == 0) {
                    Name own;
                    socklen_t room = sizeof own;
                    getsockname(a, &own.any, &room);
                } else {
                    sendto(a, &byte, 1, MSG_DONTWAIT, &name.any, len);
                }
            }
            clock_gettime(CLOCK_MONOTONIC, &end);
            double each = ((end.tv_sec - begin.tv_sec) * 1e9 + end.tv_nsec - begin.tv_nsec) / calls;
            best = each < best ? each : best;
        }
        printf("%s %.1f ns\n", what ? "sendto" : "getsockname", best);
    }
}

/* serve ADDRESS: says its port, and who calls. */
static void serve(const char *address) {
    int listener = bound(SOCK_STREAM, address, 0);
    must(!listen(listener, 1), "listen");
    Name at = own(listener), caller = {0};
    printf("%d\n", port_of(&at));
    socklen_t len = sizeof caller;
    int accepted = accept(listener, &caller.any, &len);
    must(accepted >= 0, "accept");
    Name also = peer(accepted);
    printf("%s:%d %s:%d\n", text(&caller), port_of(&caller), text(&also), port_of(&also));
    must(write(accepted, "x", 1) == 1, "write");
}

/* call ADDRESS PORT FROM: both ends of a connection; FROM may be "-". */
static void call(const char *address, int port, const char *from) {
    Name name;
    socklen_t len = named(&name, address, port);
    int fd = *from == '-' ? socket(name.any.sa_family, SOCK_STREAM, 0) : bound(SOCK_STREAM, from, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (connect(fd, &name.any, len)) {
        printf("%s\n", strerrorname_np(errno));
        return;
    }
    Name local = own(fd), remote = peer(fd);
    getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, &(socklen_t){sizeof on});
    printf("%s:%d %s:%d reuse %d\n", text(&local), port_of(&local), text(&remote), port_of(&remote), on);
    char line[8];
    while (fgets(line, sizeof line, stdin)) {
        local = own(fd), remote = peer(fd);
        printf("%s:%d %s:%d\n", text(&local), port_of(&local), text(&remote), port_of(&remote));
    }
}

int main(int argc, char **argv) {
    setlinebuf(stdout);
    const char *how = argv[1], *one = argc > 2 ? argv[2] : "", *other = argc > 3 ? argv[3] : "";
    if (!strcmp(how, "tcp")) tcp(one, other);
    if (!strcmp(how, "udp")) udp(one, other);
    if (!strcmp(how, "short")) shortly(one, other);
    if (!strcmp(how, "cancel")) cancel(one);
    if (!strcmp(how, "errors")) errors();
    if (!strcmp(how, "measure")) measure(one, atol(other));
    if (!strcmp(how, "serve")) serve(one);
    if (!strcmp(how, "call")) call(one, atoi(other), argv[4]);
    printf("RESULT done\n");
    return 0;
}
