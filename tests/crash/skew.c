/* The wall clock of a machine that nobody looks after: 40 seconds ahead. Everything else is as it is. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

#define AHEAD 40

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += AHEAD;
    return result;
}
