// Lets modules that were built with glibc 2.34 or newer run with older ones too, down to 2.28.
//
// Functions of libpthread have a second version since 2.34, which made them part of libc; it does
// what the first one does, and so do fstat of 2.33 and its predecessor; exp and log of 2.29 have the
// values of those before them, which set errno in another way. The linker's --wrap sends every use of
// them here, also those inside libstdc++, and from here they go to the old versions.
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/stat.h>

#if defined(__x86_64__)
#define FIRST_VERSION "GLIBC_2.2.5"
#define STAT_LAYOUT 1
#elif defined(__aarch64__)
#define FIRST_VERSION "GLIBC_2.17"
#define STAT_LAYOUT 0
#endif

// old_NAME is the version of NAME that is given.
#define OLD(name, version) __asm__(".symver old_" #name ", " #name "@" version)

OLD(pthread_create, FIRST_VERSION);
int old_pthread_create(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
int __wrap_pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                          void* (*start)(void*), void* argument) {
  return old_pthread_create(thread, attributes, start, argument);
}

OLD(pthread_attr_setstacksize, FIRST_VERSION);
int old_pthread_attr_setstacksize(pthread_attr_t*, size_t);
int __wrap_pthread_attr_setstacksize(pthread_attr_t* attributes, size_t size) {
  return old_pthread_attr_setstacksize(attributes, size);
}

OLD(pthread_detach, FIRST_VERSION);
int old_pthread_detach(pthread_t);
int __wrap_pthread_detach(pthread_t thread) { return old_pthread_detach(thread); }

OLD(pthread_once, FIRST_VERSION);
int old_pthread_once(pthread_once_t*, void (*)(void));
int __wrap_pthread_once(pthread_once_t* once, void (*call)(void)) {
  return old_pthread_once(once, call);
}

OLD(exp, FIRST_VERSION);
double old_exp(double);
double __wrap_exp(double x) { return old_exp(x); }

OLD(log, FIRST_VERSION);
double old_log(double);
double __wrap_log(double x) { return old_log(x); }

int __fxstat64(int, int, struct stat64*);
int __wrap_fstat64(int file, struct stat64* status) {
  return __fxstat64(STAT_LAYOUT, file, status);
}

// Since 2.32: whether libstdc++ may count references without atomic operations. Never, then.
char __wrap___libc_single_threaded = 0;
