/* Lets wrk show a client's certificate, which it has no option for: loaded before OpenSSL (LD_PRELOAD), it gives every
 * TLS context the certificate and the key that WRK_CERTIFICATE and WRK_KEY name. Nothing else changes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

enum { PEM = 1 }; /* SSL_FILETYPE_PEM; OpenSSL's headers are not needed for the rest */

typedef void *new_context(const void *method);
typedef int use_file(void *context, const char *path, int type);
typedef int use_chain(void *context, const char *path);

static void *of_openssl(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) {
        fprintf(stderr, "wrk_certificate: OpenSSL has no %s\n", name);
        exit(1);
    }
    return found;
}

void *SSL_CTX_new(const void *method)
{
    void *context = ((new_context *)of_openssl("SSL_CTX_new"))(method);
    const char *certificate = getenv("WRK_CERTIFICATE"), *key = getenv("WRK_KEY");
    use_chain *put_certificate = (use_chain *)of_openssl("SSL_CTX_use_certificate_chain_file");
    use_file *put_key = (use_file *)of_openssl("SSL_CTX_use_PrivateKey_file");
    if (!context || !certificate || !key || put_certificate(context, certificate) != 1
        || put_key(context, key, PEM) != 1) {
        fprintf(stderr, "wrk_certificate: the certificate or its key cannot be used\n");
        exit(1);
    }
    return context;
}
