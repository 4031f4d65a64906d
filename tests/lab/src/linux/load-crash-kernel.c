/* Loads the kernel that takes over when the present one panics: load-crash-kernel KERNEL INITRAMFS COMMAND-LINE.
 *
 * Debian's kexec is linked to Xen's libraries; this is the one system call of it that the Linux guest needs. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* KEXEC_FILE_ON_CRASH of linux/kexec.h. */
#define ON_CRASH 2UL

int main(int count, char **words)
{
    if (count != 4)
        return 2;
    int kernel = open(words[1], O_RDONLY);
    int initramfs = open(words[2], O_RDONLY);
    if (syscall(SYS_kexec_file_load, kernel, initramfs, strlen(words[3]) + 1, words[3], ON_CRASH) != 0) {
        perror("load-crash-kernel");
        return 1;
    }
    return 0;
}
