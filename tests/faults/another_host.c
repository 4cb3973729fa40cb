/* Gives a process another name of its host, ANOTHER_HOST, as if it ran on a machine of its own: then others cannot look
   for its process, and know of it only by its beats. */

#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

int uname(struct utsname *about) {
    int result = (int)syscall(SYS_uname, about);
    const char *name = getenv("ANOTHER_HOST");
    if (!result && name) snprintf(about->nodename, sizeof about->nodename, "%s", name);
    return result;
}
