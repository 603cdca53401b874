/* For builds with ThreadSanitizer only: what it cannot see in libraries that were built without it.
 *
 * It watches setjmp and longjmp, but not the names by which the distributions' liblua jumps.
 * Unseen, each yield and each error leaves its C functions on the sanitizer's own stack, which then
 * grows without end. And libuv closes descriptors by system calls of its own, so that the next
 * owner of a number seems to race with the last one.
 *
 * The link option -u in CMakeLists.txt brings this file into every program. */
#ifdef __SANITIZE_THREAD__
#include <setjmp.h>

void __longjmp_chk(jmp_buf to, int value);

__attribute__((visibility("default"))) void __longjmp_chk(jmp_buf to, int value)
{
    longjmp(to, value);
}

__attribute__((visibility("default"))) void _longjmp(jmp_buf to, int value)
{
    longjmp(to, value);
}

const char *__tsan_default_suppressions(void);

__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void)
{
    return "race:interceptor_accept4\nrace:interceptor_epoll_create1\n"
           "race:interceptor_eventfd\nrace:interceptor_socket\nrace:interceptor_open\n"
           "race:interceptor_fopen\n";
}
#endif
