/* Shows a process a later time of day, by CLOCK_AHEAD_MS. Preloaded; asks the kernel directly and allocates
 * nothing, so that it also works below a memory allocator that asks for the time while it starts (libfaketime
 * does not). Clocks that only measure intervals are left alone. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long ahead_ms(void) {
    static long ahead = -1;
    if (ahead < 0) {
        const char *text = getenv("CLOCK_AHEAD_MS");
        ahead = text ? atol(text) : 0;
    }
    return ahead;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int done = (int)syscall(SYS_clock_gettime, clock, now);
    if (done == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        long nanoseconds = now->tv_nsec + ahead_ms() % 1000 * 1000000;
        now->tv_sec += ahead_ms() / 1000 + nanoseconds / 1000000000;
        now->tv_nsec = nanoseconds % 1000000000;
    }
    return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec precise;
    int done = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return done;
}

time_t time(time_t *also) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (also) {
        *also = now.tv_sec;
    }
    return now.tv_sec;
}
