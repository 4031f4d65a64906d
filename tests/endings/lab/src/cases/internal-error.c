// Loaded into QEMU before its own libraries. When a file beside it appears, it says what QEMU says when KVM cannot go on,
// in QEMU's own words, and stops the machine by QEMU's own function in QEMU's own state for that: what follows, QEMU's
// events, its log, and what libvirt makes of both, is theirs. Only the reason is ours: KVM needs hardware.
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// RunState of QEMU's qapi/run-state.json: debug, inmigrate, internal-error.
enum { INTERNAL_ERROR = 2 };

static char begin[4096];

static void *wait(void *unused)
{
    void (*prepare)(void) = (void (*)(void))dlsym(RTLD_DEFAULT, "qemu_system_vmstop_request_prepare");
    void (*request)(int) = (void (*)(int))dlsym(RTLD_DEFAULT, "qemu_system_vmstop_request");

    while (access(begin, F_OK) != 0)
        usleep(20000);
    if (!prepare || !request) {
        fprintf(stderr, "lab: this QEMU does not name its functions\n");
        return unused;
    }
    fprintf(stderr, "KVM internal error. Suberror: 1\nextra data[0]: 0x0000000000000002\nemulation failure\n");
    prepare();
    request(INTERNAL_ERROR);
    return unused;
}

__attribute__((constructor)) static void begin_to_wait(void)
{
    const char *library = getenv("LD_PRELOAD");
    pthread_t thread;

    if (!library || strlen(library) + sizeof ".now" > sizeof begin)
        return;
    sprintf(begin, "%s.now", library);
    unsetenv("LD_PRELOAD");
    pthread_create(&thread, NULL, wait, NULL);
}
