#include "aead.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

bool aead_cpu_has_aes(void) {
    unsigned eax;
    unsigned ebx;
    unsigned ecx;
    unsigned edx;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) {
        return false;
    }
    return (ecx & bit_AES) != 0 && (ecx & bit_PCLMUL) != 0;
}
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>

bool aead_cpu_has_aes(void) {
    unsigned long wanted = HWCAP_AES | HWCAP_PMULL;
    return (getauxval(AT_HWCAP) & wanted) == wanted;
}
#else
bool aead_cpu_has_aes(void) {
    return false;
}
#endif

/* Fastest first. */
static const struct aead_backend *const backends[] = {
#ifdef VPND_HAVE_IPSEC_MB
    &aead_ipsec_mb,
#endif
    &aead_openssl,
};

const struct aead_backend *aead_choose(const char *wanted) {
    for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++) {
        const struct aead_backend *backend = backends[i];
        if (wanted != NULL && strcmp(wanted, backend->name) != 0) {
            continue;
        }
        if (backend->offers(AEAD_AES_256_GCM) && backend->offers(AEAD_CHACHA20_POLY1305)) {
            return backend;
        }
    }
    return NULL;
}
