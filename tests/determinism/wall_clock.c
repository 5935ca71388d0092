/* LD_PRELOAD: another wall clock for a whole process, native code included; monotonic clocks stay as they are.
   WALL_OFFSET_S is added to the time, and WALL_RATE (1) is how fast it goes from the start of the process on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define WALL 900000000LL /* times in s above it are of a wall clock, below it of a monotonic one */

static long long began, offset;
static double rate = 1;

static long long real_now(void) {
  struct timespec t;
  syscall(SYS_clock_gettime, CLOCK_REALTIME, &t);
  return t.tv_sec * SECOND + t.tv_nsec;
}

static void __attribute__((constructor)) begin(void) {
  const char *o = getenv("WALL_OFFSET_S"), *r = getenv("WALL_RATE");
  offset = o ? atoll(o) * SECOND : 0;
  rate = r ? atof(r) : 1;
  began = real_now();
}

static struct timespec spec(long long ns) {
  return (struct timespec){ns / SECOND, ns % SECOND};
}

static long long faked(void) { return began + offset + (long long)((real_now() - began) * rate); }

static struct timespec unfaked(const struct timespec *t) {
  if (t->tv_sec < WALL) return *t;
  return spec(began + (long long)((t->tv_sec * SECOND + t->tv_nsec - offset - began) / rate));
}

int clock_gettime(clockid_t clock, struct timespec *t) {
  if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE) return syscall(SYS_clock_gettime, clock, t);
  *t = spec(faked());
  return 0;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
  (void)zone;
  struct timespec now = spec(faked());
  t->tv_sec = now.tv_sec;
  t->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *t) {
  time_t now = faked() / SECOND;
  if (t) *t = now;
  return now;
}

int timespec_get(struct timespec *t, int base) {
  *t = spec(faked());
  return base;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int pthread_cond_timedwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m, const struct timespec *restrict t) {
  static __typeof__(&pthread_cond_timedwait) real;
  if (!real) real = (__typeof__(real))dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  if (!real) real = REAL(pthread_cond_timedwait);
  struct timespec until = unfaked(t);
  return real(c, m, &until);
}

int sem_timedwait(sem_t *restrict s, const struct timespec *restrict t) {
  static __typeof__(&sem_timedwait) real;
  if (!real) real = REAL(sem_timedwait);
  struct timespec until = unfaked(t);
  return real(s, &until);
}

int cnd_timedwait(cnd_t *restrict c, mtx_t *restrict m, const struct timespec *restrict t) {
  static __typeof__(&cnd_timedwait) real;
  if (!real) real = REAL(cnd_timedwait);
  struct timespec until = unfaked(t);
  return real(c, m, &until);
}
