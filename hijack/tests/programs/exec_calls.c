/* Calls every function of the exec family in every way and prints what came of it: with the library as without. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static const char *self;
static char *const some[] = {"A=1", "PATH=/elsewhere", "B=two words", NULL};
static char *const show[] = {"zero", "show", "one", "two words", "", NULL};
static char *const alone[] = {"only", NULL};

static void block_mask(char *text, size_t size) {
    unsigned long mask = 0;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8);
    snprintf(text, size, "blocked %lx", mask);
}

/* What the executed program sees. */
static int show_all(int argc, char **argv) {
    for (int i = 0; i < argc; i++) printf("[%s]", argv[i]);
    for (char **e = environ; *e; e++)
        if (strncmp(*e, "LD_PRELOAD=", 11) && strncmp(*e, "SLACKWATER_JOB=", 15)) printf(" %.40s", *e);
    char mask[40];
    block_mask(mask, sizeof mask);
    printf(" %s\n", mask);
    return 0;
}

/* One call in a child; what it says when it failed. */
#define CALL(name, call)                                                                   \
    do {                                                                                   \
        for (int vforked = 0; vforked < 2; vforked++) {                                    \
            printf("%s%s: ", name, vforked ? " after vfork" : "");                         \
            fflush(stdout);                                                                \
            pid_t child = vforked ? vfork() : fork();                                      \
            if (child == 0) {                                                              \
                errno = 0;                                                                 \
                int result = call;                                                         \
                int number = errno;                                                        \
                char text[100], mask[40];                                                  \
                block_mask(mask, sizeof mask);                                             \
                int size = snprintf(text, sizeof text, "%d errno %d %s\n", result, number, mask); \
                if (write(1, text, size) != size) _exit(99);                               \
                _exit(3);                                                                  \
            }                                                                              \
            int status;                                                                    \
            waitpid(child, &status, 0);                                                    \
            printf("    status %x\n", status);                                             \
        }                                                                                  \
    } while (0)

static void file(const char *path, mode_t mode, const char *text) {
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fchmod(fd, mode) || close(fd)) {
        perror(path);
        exit(2);
    }
}

static void prepare(void) {
    mkdir("first", 0755);
    mkdir("second", 0755);
    mkdir("folder", 0755);
    file("first/bare", 0755, "echo bare $0 $# \"$@\"\n");
    file("first/denied", 0644, "");
    file("first/both", 0644, "");
    file("second/both", 0755, "echo second both $#\n");
    file("here", 0755, "echo here $0\n");
    file("hashbang", 0755, "#!/bin/sh\necho hashbang $0 $#\n");
    file("nowhere", 0755, "#!/no/such/interpreter\n");
    if (symlink(self, "second/tool") || symlink("second/tool", "link")) perror("symlink");
}

static void lists(void) {
    CALL("execl 1", execl(self, "show", NULL));
    CALL("execl 2", execl(self, "zero", "show", NULL));
    CALL("execl 4", execl(self, "zero", "show", "2", "3", NULL));
    CALL("execl 5", execl(self, "zero", "show", "2", "3", "4", NULL));
    CALL("execl 6", execl(self, "zero", "show", "2", "3", "4", "5", NULL));
    CALL("execl 12", execl(self, "zero", "show", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", NULL));
    CALL("execl missing", execl("/no/such", "zero", "1", "2", "3", "4", "5", "6", NULL));
    CALL("execle 2", execle(self, "zero", "show", NULL, some));
    CALL("execle 3", execle(self, "zero", "show", "2", NULL, some));
    CALL("execle 4", execle(self, "zero", "show", "2", "3", NULL, some));
    CALL("execle 5", execle(self, "zero", "show", "2", "3", "4", NULL, some));
    CALL("execle 8", execle(self, "zero", "show", "2", "3", "4", "5", "6", "7", NULL, some));
    CALL("execle null", execle(self, "zero", "show", NULL, NULL));
    CALL("execlp", execlp("tool", "zero", "show", "2", NULL));
    CALL("execlp 7", execlp("tool", "zero", "show", "2", "3", "4", "5", "6", NULL));
    CALL("execlp missing", execlp("no-such-tool", "zero", "1", "2", "3", "4", "5", "6", NULL));
}

static void vectors(void) {
    CALL("execve", execve(self, show, some));
    CALL("execve script", execve("first/bare", show, some));
    CALL("execve hashbang", execve("hashbang", show, some));
    CALL("execve nowhere", execve("nowhere", show, some));
    CALL("execve denied", execve("first/denied", show, some));
    CALL("execve folder", execve("folder", show, some));
    CALL("execve not a folder", execve("first/denied/x", show, some));
    CALL("execve empty", execve("", show, some));
    CALL("execve null path", execve(NULL, show, some));
    CALL("execve bad argv", execve(self, (char **)8, some));
    CALL("execv", execv(self, show));
    CALL("execv missing", execv("/no/such", show));
    CALL("execve no environment", execve(self, show, NULL));
    int fd = open(self, O_RDONLY), script = open("hashbang", O_RDONLY | O_CLOEXEC), folder = open("second", O_RDONLY);
    CALL("fexecve", fexecve(fd, show, some));
    CALL("fexecve script", fexecve(script, show, some));
    CALL("fexecve -1", fexecve(-1, show, some));
    CALL("fexecve no argv", fexecve(fd, NULL, some));
    CALL("fexecve no envp", fexecve(fd, show, NULL));
    CALL("fexecve closed", fexecve(999, show, some));
    CALL("execveat", execveat(folder, "tool", show, some, 0));
    CALL("execveat fd", execveat(fd, "", show, some, AT_EMPTY_PATH));
    CALL("execveat here", execveat(AT_FDCWD, "hashbang", show, some, 0));
    CALL("execveat link", execveat(AT_FDCWD, "link", show, some, AT_SYMLINK_NOFOLLOW));
    CALL("execveat flags", execveat(folder, "tool", show, some, 1 << 30));
}

static void one_path(const char *path) {
    printf("PATH %s\n", path ? path : "unset");
    if (path) setenv("PATH", path, 1); else unsetenv("PATH");
    static const char *const names[] = {"tool", "bare", "denied", "both", "here", "true", "no-such-tool", "folder",
                                        "first/bare", "./here", "first/denied", "no/such", ""};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *name = names[i];
        printf("%s ", name);
        CALL("execvp", execvp(name, show));
        CALL("execvpe", execvpe(name, show, some));
        CALL("execvp alone", execvp(name, alone));
    }
}

static void paths(void) {
    char here[3000], path[9000], name[400];
    if (!getcwd(here, sizeof here)) exit(2);
    static const char *const forms[] = {"%s/first:%s/second", "%s/second:%s/first", ":%s/second", "%s/second:", "",
                                        "%s/no-such::%s/first", "%s/first/denied:%s/second", "relative:/bin"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        snprintf(path, sizeof path, forms[i], here, here);
        one_path(path);
    }
    one_path(NULL);
    memset(name, 'n', sizeof name);
    name[256] = 0;
    CALL("execvp name of 256", execvp(name, show));
    name[255] = 0;
    CALL("execvp name of 255", execvp(name, show));
    snprintf(path, sizeof path, "%s/first", here);
    setenv("PATH", path, 1);
    char *many[5002];
    for (int i = 0; i < 5001; i++) many[i] = "argument";
    many[5001] = NULL;
    CALL("script with many arguments", execvp("bare", many));
    char *huge = malloc(300000);
    memset(huge, 'x', 299999);
    huge[299999] = 0;
    char *const too_long[] = {"bare", huge, NULL};
    CALL("argument too long", execvp("bare", too_long));
}

static void large_environments(void) {
    static char *variables[6001], text[6000][12];
    for (int i = 0; i < 6000; i++) variables[i] = (snprintf(text[i], sizeof *text, "V%d=%d", i, i), text[i]);
    static const int counts[] = {0, 1, 1000, 2000, 2050};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        char *next = variables[counts[i]];
        variables[counts[i]] = NULL;
        printf("%d ", counts[i]);
        CALL("variables", execve(self, show, variables));
        variables[counts[i]] = next;
    }
}

static void *many_execs(void *failed) {
    for (int i = 0; i < 40; i++) {
        pid_t child = vfork();
        if (child == 0) {
            execvp(i % 2 ? "no-such-tool" : "true", show);
            _exit(errno == ENOENT ? 7 : 8);
        }
        int status;
        waitpid(child, &status, 0);
        if (WEXITSTATUS(status) != (i % 2 ? 7 : 0)) __atomic_add_fetch((int *)failed, 1, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

static void from_threads(void) {
    setenv("PATH", "/no/such:/bin:/usr/bin", 1);
    pthread_t threads[4];
    int failed = 0;
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, many_execs, &failed);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    printf("from threads: %d failed\n", failed);
}

int main(int argc, char **argv) {
    alarm(100);
    if (argc > 1 && !strcmp(argv[1], "show")) return show_all(argc, argv);
    if (argc < 2) return show_all(argc, argv);
    self = argv[1];
    prepare();
    char here[3000], path[9000];
    if (!getcwd(here, sizeof here)) return 2;
    snprintf(path, sizeof path, "%s/first:%s/second:/bin", here, here);
    setenv("PATH", path, 1);
    lists();
    vectors();
    paths();
    large_environments();
    from_threads();
    puts("RESULT done");
    return 0;
}
