"""A disk that fails when it is told to: a shim between a program and its C library."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

# Fails a call on paths that hold a text while the file $FAULT says "CALL ERRNO TEXT".
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int wanted(const char *call, const char *path) {
    static ssize_t (*real_read)(int, void *, size_t);
    static int (*real_open)(const char *, int, ...);
    if (!real_read) real_read = dlsym(RTLD_NEXT, "read");
    if (!real_open) real_open = dlsym(RTLD_NEXT, "open");
    const char *control = getenv("FAULT");
    int kept = errno, number = 0, descriptor = control ? real_open(control, O_RDONLY | O_CLOEXEC) : -1;
    char said[512] = "", name[32] = "", text[256] = "";
    if (descriptor >= 0) {
        ssize_t count = real_read(descriptor, said, sizeof said - 1);
        close(descriptor);
        if (count > 0 && sscanf(said, "%31s %d %255s", name, &number, text) == 3
            && !strcmp(name, call) && path && strstr(path, text)) {
            errno = number;
            return 1;
        }
    }
    errno = kept;
    return 0;
}

static int wanted_at(const char *call, int descriptor) {
    char link[64], path[1024];
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t count = readlink(link, path, sizeof path - 1);
    errno = kept;
    if (count < 0) return 0;
    path[count] = 0;
    return wanted(call, path);
}

#define AT(result, name, call, parameters, arguments) \
    result name parameters { \
        static result (*real) parameters; \
        if (!real) real = dlsym(RTLD_NEXT, #name); \
        return wanted_at(call, descriptor) ? -1 : real arguments; \
    }
AT(ssize_t, read, "read", (int descriptor, void *to, size_t size), (descriptor, to, size))
AT(ssize_t, pread64, "read", (int descriptor, void *to, size_t size, off64_t at), (descriptor, to, size, at))
AT(ssize_t, write, "write", (int descriptor, const void *from, size_t size), (descriptor, from, size))
AT(ssize_t, pwrite64, "write", (int descriptor, const void *from, size_t size, off64_t at),
    (descriptor, from, size, at))
AT(int, fsync, "fsync", (int descriptor), (descriptor))
AT(int, fdatasync, "fsync", (int descriptor), (descriptor))

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        static int (*real)(const char *, int, ...); \
        va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
        if (!real) real = dlsym(RTLD_NEXT, #name); \
        return (flags & O_CREAT) && wanted("create", path) ? -1 : real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

int rename(const char *from, const char *to) {
    static int (*real)(const char *, const char *);
    if (!real) real = dlsym(RTLD_NEXT, "rename");
    return wanted("rename", to) ? -1 : real(from, to);
}
"""


@dataclass(frozen=True)
class FaultyDisk:
    """The shim, and the file that tells it what to do."""

    library: Path
    control: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of the program that shall run on it."""
        return {"LD_PRELOAD": str(self.library), "FAULT": str(self.control)}

    @contextmanager
    def failing(self, call: str, number: int, path: str) -> Iterator[None]:
        """While *call* (create, write, fsync, rename, read) fails with *number* on every path that holds *path*."""
        told = self.control.with_suffix(".tmp")
        told.write_text(f"{call} {number} {path}")
        os.replace(told, self.control)
        try:
            yield
        finally:
            self.control.unlink()


def faulty_disk(folder: Path) -> FaultyDisk:
    """Build it in *folder*."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler for the shim")
    source, library = folder / "shim.c", folder / "shim.so"
    source.write_text(_SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-w", "-o", library, source, "-ldl"], check=True)
    return FaultyDisk(library, folder / "fault")
