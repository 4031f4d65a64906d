/* A disk whose syncs take long: loaded before the C library's own (LD_PRELOAD), it lets every fsync and fdatasync wait for
 * as many milliseconds as the file named by SLOW_SYNC_FILE says at that moment. Without such a file it changes nothing. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void wait_as_told(void) {
    const char *path = getenv("SLOW_SYNC_FILE");
    if (!path) return;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    char text[16] = {0};
    ssize_t got = read(file, text, sizeof text - 1);
    close(file);
    long millis = got > 0 ? atol(text) : 0;
    if (millis <= 0) return;
    struct timespec left = {millis / 1000, millis % 1000 * 1000000};
    while (nanosleep(&left, &left) && errno == EINTR) {}
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_as_told();
    return real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_as_told();
    return real(fd);
}
