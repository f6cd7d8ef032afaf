/* A disk that takes its time: preloaded, calls on files below SLOW_DISK_FOLDER wait as long as SLOW_DISK_DELAYS says.
   That file holds two numbers, of milliseconds for a call that reads and for one that writes; it is read again while a
   call waits, so that the disk can be well at once. What the call does, and gives, is the same. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { READS, WRITES };
#define STEP_MS 20

static long delay(int kind)
{
    char text[64] = "";
    long told[2] = {0, 0};
    const char *path = getenv("SLOW_DISK_DELAYS");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return 0;
    if (syscall(SYS_pread64, fd, text, sizeof text - 1, 0) > 0)
        sscanf(text, "%ld %ld", &told[READS], &told[WRITES]);
    syscall(SYS_close, fd);
    return told[kind];
}

static void take_time(int kind)
{
    struct timespec step = {0, STEP_MS * 1000000L};
    for (long waited = 0; waited < delay(kind); waited += STEP_MS)
        nanosleep(&step, NULL);
}

static void wait_for(int fd, int kind)
{
    char link[64], path[PATH_MAX];
    const char *folder = getenv("SLOW_DISK_FOLDER");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (folder == NULL || length < 0)
        return;
    path[length] = '\0';
    if (strncmp(path, folder, strlen(folder)) == 0)
        take_time(kind);
}

#define OF_FILE(result, name, kind, parameters, fd, arguments)               \
    result name parameters                                                   \
    {                                                                        \
        static result(*real) parameters;                                     \
        if (real == NULL)                                                    \
            real = (result(*) parameters)dlsym(RTLD_NEXT, #name);            \
        wait_for(fd, kind);                                                  \
        return real arguments;                                               \
    }

OF_FILE(ssize_t, pread, READS, (int fd, void *to, size_t size, off_t at), fd, (fd, to, size, at))
OF_FILE(ssize_t, pread64, READS, (int fd, void *to, size_t size, off64_t at), fd, (fd, to, size, at))
OF_FILE(ssize_t, sendfile, READS, (int out, int fd, off_t *at, size_t size), fd, (out, fd, at, size))
OF_FILE(ssize_t, sendfile64, READS, (int out, int fd, off64_t *at, size_t size), fd, (out, fd, at, size))
OF_FILE(ssize_t, pwrite, WRITES, (int fd, const void *from, size_t size, off_t at), fd, (fd, from, size, at))
OF_FILE(ssize_t, pwrite64, WRITES, (int fd, const void *from, size_t size, off64_t at), fd, (fd, from, size, at))
OF_FILE(int, posix_fallocate, WRITES, (int fd, off_t at, off_t size), fd, (fd, at, size))
OF_FILE(int, posix_fallocate64, WRITES, (int fd, off64_t at, off64_t size), fd, (fd, at, size))
