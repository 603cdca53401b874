/* Whom TLS believes: the system's roots, an upstream's own CA, its client certificate.
 *
 * curl would read a PEM bundle for each connection. Here the system's roots are parsed once per
 * process, when https is first used, and shared: a store per upstream holds references to them and
 * what the upstream adds. Stores belong to their client's thread; the shared list is guarded by a
 * mutex and never changes. */
#include "client/internal.h"

#include "base/log.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>

static pthread_mutex_t roots_lock = PTHREAD_MUTEX_INITIALIZER;
static STACK_OF(X509) * system_roots;

static void free_certificates(STACK_OF(X509) * list)
{
    sk_X509_pop_free(list, X509_free);
}

/* All certificates of a PEM text; NULL when one of them is broken or there is none. */
static STACK_OF(X509) * read_certificates(BIO *in)
{
    STACK_OF(X509) *list = sk_X509_new_null();
    X509 *certificate;
    ERR_clear_error();
    while (in && list && (certificate = PEM_read_bio_X509(in, NULL, NULL, NULL))) {
        if (!sk_X509_push(list, certificate)) {
            X509_free(certificate);
            break;
        }
    }
    bool whole = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    BIO_free(in);
    if (whole && list && sk_X509_num(list) > 0)
        return list;
    free_certificates(list);
    return NULL;
}

static STACK_OF(X509) * read_pem(const char *pem)
{
    return read_certificates(BIO_new_mem_buf(pem, -1));
}

/* SSL_CERT_FILE, as OpenSSL and Go have it, or the bundle that curl was built for. */
static STACK_OF(X509) * get_system_roots(void)
{
    pthread_mutex_lock(&roots_lock);
    if (!system_roots) {
        const char *path = getenv("SSL_CERT_FILE");
        if (!path || !*path)
            path = curl_version_info(CURLVERSION_NOW)->cainfo;
        system_roots = path ? read_certificates(BIO_new_file(path, "r")) : NULL;
        if (!system_roots)
            ml_log(ML_LOG_ERROR, "the system's CA certificates cannot be read",
                   ML_FZ("path", path ? path : ""));
    }
    STACK_OF(X509) *ret = system_roots;
    pthread_mutex_unlock(&roots_lock);
    return ret;
}

void ml_trust_global_done(void)
{
    free_certificates(system_roots);
    system_roots = NULL;
}

static bool add_all(X509_STORE *store, STACK_OF(X509) * list)
{
    for (int i = 0; i < sk_X509_num(list); i++)
        if (!X509_STORE_add_cert(store, sk_X509_value(list, i)))
            return false;
    return true;
}

static bool add_pem(X509_STORE *store, const char *pem)
{
    if (!*pem)
        return true;
    STACK_OF(X509) *list = read_pem(pem);
    bool ok = list && add_all(store, list);
    free_certificates(list);
    return ok;
}

/* NULL: the connection must fail. A missing system bundle is only fatal when nothing else is
 * trusted. */
static X509_STORE *store_new(const struct ml_upstream *u)
{
    X509_STORE *store = X509_STORE_new();
    if (!store)
        return NULL;
    STACK_OF(X509) *roots = *u->ca_pem ? NULL : get_system_roots();
    bool ok = roots || *u->ca_pem || *u->ca_extra;
    ok = ok && (!roots || add_all(store, roots)) && add_pem(store, u->ca_pem) &&
         add_pem(store, u->ca_extra);
    if (ok)
        return store;
    X509_STORE_free(store);
    return NULL;
}

CURLcode ml_trust_apply(CURL *easy, void *ssl_ctx, void *arg)
{
    struct ml_fetch *f = ((struct ml_slot *)arg)->fetch;
    struct ml_upstream *u = f->upstream;
    if (!u->trust)
        u->trust = store_new(u);
    if (!u->trust)
        return CURLE_SSL_CACERT_BADFILE;
    SSL_CTX_set1_cert_store(ssl_ctx, u->trust);
    /* OpenSSL checks the name too: unlike curl it can be told that a subject's CN is no name (RFC
     * 9525 2). */
    X509_VERIFY_PARAM *param = SSL_CTX_get0_param(ssl_ctx);
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT |
                                               X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    bool ok = X509_VERIFY_PARAM_set1_ip_asc(param, f->host) ||
              X509_VERIFY_PARAM_set1_host(param, f->host, 0);
    ERR_clear_error();
    return ok ? CURLE_OK : CURLE_SSL_CONNECT_ERROR;
}

void ml_trust_free(struct x509_store_st *trust)
{
    X509_STORE_free(trust);
}

const char *ml_trust_error_text(long verify_result)
{
    return X509_verify_cert_error_string(verify_result);
}

int ml_trust_check_ca(const char *pem, struct ml_err *err)
{
    STACK_OF(X509) *list = read_pem(pem);
    if (!list)
        return ml_fail(err, ML_E_INVALID, "the CA is no PEM text of certificates");
    free_certificates(list);
    return 0;
}

/* An encrypted key has nobody to ask: it is refused, not prompted for. */
static int no_password(char *out, int n, int writing, void *arg)
{
    return -1;
}

int ml_trust_check_pair(const char *cert_pem, const char *key_pem, struct ml_err *err)
{
    STACK_OF(X509) *chain = read_pem(cert_pem);
    BIO *in = BIO_new_mem_buf(key_pem, -1);
    EVP_PKEY *key = in ? PEM_read_bio_PrivateKey(in, NULL, no_password, NULL) : NULL;
    int r = 0;
    if (!chain)
        r = ml_fail(err, ML_E_INVALID, "the client certificate is no PEM text of certificates");
    else if (!key)
        r = ml_fail(err, ML_E_INVALID, "the client key is no PEM text of an open private key");
    else if (!X509_check_private_key(sk_X509_value(chain, 0), key))
        r = ml_fail(err, ML_E_INVALID, "the client key does not belong to the certificate");
    EVP_PKEY_free(key);
    BIO_free(in);
    free_certificates(chain);
    ERR_clear_error();
    return r;
}
