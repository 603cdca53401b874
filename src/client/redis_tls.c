/* TLS of Redis: OpenSSL between two memory BIOs, so that it never sees a socket. The context is
 * made once and shared by threads; a session belongs to its connection's thread. */
#include "client/redis_internal.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

int ml_redis_tls_setup(struct ssl_ctx_st **ret, const char *ca_file, struct ml_err *err)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    bool ok = ctx && SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    if (ok && *ca_file && !SSL_CTX_load_verify_locations(ctx, ca_file, NULL)) {
        ml_redis_tls_free(ctx);
        ERR_clear_error();
        return ml_fail(err, ML_E_IO, "Redis: %s: cannot be read or is no PEM of certificates",
                       ca_file);
    }
    if (ok && !*ca_file)
        ok = SSL_CTX_set_default_verify_paths(ctx);
    ERR_clear_error();
    if (!ok) {
        ml_redis_tls_free(ctx);
        return ml_fail(err, ML_E_NOMEM, "Redis: OpenSSL gives no context");
    }
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    *ret = ctx;
    return 0;
}

void ml_redis_tls_free(struct ssl_ctx_st *ctx)
{
    SSL_CTX_free(ctx);
}

/* The certificate must name the host (RFC 9525: a subject's CN is no name) or the address. */
static bool expect(SSL *ssl, const char *host)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT |
                                               X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (X509_VERIFY_PARAM_set1_ip_asc(param, host))
        return true;
    return X509_VERIFY_PARAM_set1_host(param, host, 0) && SSL_set_tlsext_host_name(ssl, host);
}

struct ssl_st *ml_redis_tls_new(struct ssl_ctx_st *ctx, const char *host)
{
    SSL *ssl = SSL_new(ctx);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    bool ok = ssl && in && out && expect(ssl, host);
    ERR_clear_error();
    if (!ok) {
        BIO_free(in);
        BIO_free(out);
        SSL_free(ssl);
        return NULL;
    }
    SSL_set_bio(ssl, in, out);
    SSL_set_connect_state(ssl);
    return ssl;
}

void ml_redis_tls_done(struct ssl_st *ssl)
{
    SSL_free(ssl);
}

static int failure(SSL *ssl, struct ml_err *err)
{
    long verified = SSL_get_verify_result(ssl);
    unsigned long code = ERR_peek_last_error();
    const char *why = code ? ERR_reason_error_string(code) : NULL;
    if (verified != X509_V_OK)
        why = X509_verify_cert_error_string(verified);
    ERR_clear_error();
    return ml_fail(err, ML_E_UNAVAILABLE, "TLS: %s", why ? why : "closed");
}

int ml_redis_tls_shake(struct ssl_st *ssl, struct ml_err *err)
{
    ERR_clear_error();
    int r = SSL_do_handshake(ssl);
    if (r == 1)
        return 1;
    return SSL_get_error(ssl, r) == SSL_ERROR_WANT_READ ? 0 : failure(ssl, err);
}

void ml_redis_tls_put(struct ssl_st *ssl, const char *p, size_t n)
{
    BIO_write(SSL_get_rbio(ssl), p, (int)n);
}

int ml_redis_tls_read(struct ssl_st *ssl, char *out, size_t n, struct ml_err *err)
{
    ERR_clear_error();
    int r = SSL_read(ssl, out, (int)n);
    if (r > 0)
        return r;
    return SSL_get_error(ssl, r) == SSL_ERROR_WANT_READ ? 0 : failure(ssl, err);
}

bool ml_redis_tls_write(struct ssl_st *ssl, const char *p, size_t n)
{
    ERR_clear_error();
    return n == 0 || SSL_write(ssl, p, (int)n) == (int)n;
}

bool ml_redis_tls_take(struct ssl_st *ssl, struct ml_buf *out)
{
    BIO *bio = SSL_get_wbio(ssl);
    size_t n = BIO_ctrl_pending(bio);
    if (n == 0)
        return true;
    if (!ml_buf_reserve(out, n))
        return false;
    int r = BIO_read(bio, out->p + out->n, (int)n);
    out->n += r > 0 ? (size_t)r : 0;
    return r == (int)n;
}
