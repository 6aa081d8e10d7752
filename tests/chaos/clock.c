/* Beside libfaketime: the waits of C11 threads, which librdkafka uses and libfaketime does not know, become those of POSIX
 * threads, which it does. Without this a wait until a time of the wrong clock would end at once, or hours later. In glibc
 * the two have the same conditions and mutexes. */
#include <errno.h>
#include <pthread.h>
#include <threads.h>
#include <time.h>

int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until) {
    int error = pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, until);
    return error == 0 ? thrd_success : error == ETIMEDOUT ? thrd_timedout : thrd_error;
}
