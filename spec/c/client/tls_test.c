/* Whom the client believes (S-160, S-166). Certificates are made here, with OpenSSL. */
#include "c/client/support.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>

struct identity {
    X509 *cert;
    EVP_PKEY *key;
};

struct wish {
    const char *cn, *san; /* san: "DNS:x,IP:y" or NULL */
    bool ca;
    const EVP_MD *digest;
    long from, until; /* seconds from now */
    const char *eku;  /* "serverAuth" or NULL */
    bool nul;         /* the SAN is localhost, a NUL and more */
};

static struct identity root, stranger; /* the CA that tests trust, and one they do not */

static void add_extension(X509 *cert, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(e);
    X509_add_ext(cert, e, -1);
    X509_EXTENSION_free(e);
}

static void add_nul_name(X509 *cert)
{
    static const char name[] = "localhost\0.evil.example";
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    GENERAL_NAME *one = GENERAL_NAME_new();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();
    ASN1_STRING_set(text, name, sizeof name - 1);
    GENERAL_NAME_set0_value(one, GEN_DNS, text);
    sk_GENERAL_NAME_push(names, one);
    assert_int_equal(X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, 0), 1);
    GENERAL_NAMES_free(names);
}

/* issuer NULL: self-signed. */
static struct identity make(struct wish w, const struct identity *issuer)
{
    static long serial = 1;
    struct identity id = {X509_new(), w.ca ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256")};
    X509_NAME *name = X509_get_subject_name(id.cert);
    X509_set_version(id.cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(id.cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(id.cert), w.from);
    X509_gmtime_adj(X509_getm_notAfter(id.cert), w.until ? w.until : 3600);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)w.cn, -1, -1, 0);
    X509_set_issuer_name(id.cert, issuer ? X509_get_subject_name(issuer->cert) : name);
    X509_set_pubkey(id.cert, id.key);
    if (w.ca)
        add_extension(id.cert, NID_basic_constraints, "critical,CA:TRUE");
    if (w.san)
        add_extension(id.cert, NID_subject_alt_name, w.san);
    if (w.eku)
        add_extension(id.cert, NID_ext_key_usage, w.eku);
    if (w.nul)
        add_nul_name(id.cert);
    assert_true(
        X509_sign(id.cert, issuer ? issuer->key : id.key, w.digest ? w.digest : EVP_sha256()) > 0);
    return id;
}

static void drop(struct identity *id)
{
    X509_free(id->cert);
    EVP_PKEY_free(id->key);
}

/* PEM text; the caller frees it. */
static char *pem_of(const struct identity *id, bool key)
{
    BIO *out = BIO_new(BIO_s_mem());
    char *data;
    if (key)
        PEM_write_bio_PrivateKey(out, id->key, NULL, NULL, 0, NULL, NULL);
    else
        PEM_write_bio_X509(out, id->cert);
    long n = BIO_get_mem_data(out, &data);
    char *text = strndup(data, (size_t)n);
    BIO_free(out);
    return text;
}

static SSL_CTX *context_of(const struct identity *id)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_security_level(ctx, 0); /* the server may be as bad as it likes */
    assert_int_equal(SSL_CTX_use_certificate(ctx, id->cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(ctx, id->key), 1);
    return ctx;
}

static char *trusted; /* PEM of root */

static struct ml_fetch_result *ask(struct world *w, struct ml_upstream *u, const char *host)
{
    char url[128];
    snprintf(url, sizeof url, "https://%s:%d/ok", host, w->server.port);
    return fetch(w, (struct ml_fetch_request){.upstream = u}, url);
}

/* One server with that certificate, one question; 0 or the error, its text in out. */
static int try(struct identity *id, struct ml_upstream_options o, const char *host, char out[256])
{
    struct world w;
    SSL_CTX *ctx = context_of(id);
    world_open(&w, (struct ml_client_options){0}, ctx);
    struct ml_upstream *u = upstream_of(&w, o);
    assert_non_null(u);
    struct ml_fetch_result *r = ask(&w, u, host);
    int error = r->error;
    memcpy(out, r->text, 256);
    if (!error) {
        assert_int_equal(r->status, 200);
        assert_str(r->body, "hello");
    }
    ml_fetch_result_free(r);
    ml_upstream_unref(u);
    world_close(&w);
    SSL_CTX_free(ctx);
    return error;
}

static void good_certificates(void **state)
{
    struct identity id = make((struct wish){.cn = "x", .san = "DNS:localhost,IP:127.0.0.1"}, &root);
    struct ml_upstream_options with_pem = {.ca_pem = trusted};
    char path[] = "/tmp/ml-ca-XXXXXX", text[256];
    FILE *file = fdopen(mkstemp(path), "w");
    fputs(trusted, file);
    fclose(file);
    struct ml_upstream_options with_file = {.ca_file = path};
    assert_int_equal(try(&id, with_pem, "127.0.0.1", text), 0);
    assert_int_equal(try(&id, with_pem, "localhost", text), 0);
    assert_int_equal(try(&id, with_file, "localhost", text), 0);
    unlink(path);
    drop(&id);
    id = make((struct wish){.cn = "x", .san = "DNS:localhost", .eku = "serverAuth"}, &root);
    assert_int_equal(try(&id, with_pem, "localhost", text), 0);
    drop(&id);
}

static void bad_certificates(void **state)
{
    struct {
        const char *what;
        struct wish wish;
        struct identity *issuer;
        const char *host, *text;
    } cases[] = {
        {"wrong host",
         {.cn = "x", .san = "DNS:other.example"},
         &root,
         "localhost",
         "ostname mismatch"},
        {"wrong address", {.cn = "x", .san = "IP:127.0.0.2"}, &root, "127.0.0.1", "mismatch"},
        {"address as DNS name",
         {.cn = "x", .san = "DNS:127.0.0.1"},
         &root,
         "127.0.0.1",
         "mismatch"},
        {"CN only", {.cn = "localhost"}, &root, "localhost", "ostname mismatch"},
        {"wildcard on all", {.cn = "x", .san = "DNS:*"}, &root, "localhost", "ostname mismatch"},
        {"wildcard in a label", {.cn = "x", .san = "DNS:local*"}, &root, "localhost", "mismatch"},
        {"expired",
         {.cn = "x", .san = "DNS:localhost", .from = -7200, .until = -3600},
         &root,
         "localhost",
         "expired"},
        {"not yet",
         {.cn = "x", .san = "DNS:localhost", .from = 1800},
         &root,
         "localhost",
         "not yet valid"},
        {"SHA-1",
         {.cn = "x", .san = "DNS:localhost", .digest = EVP_sha1()},
         &root,
         "localhost",
         "TLS"},
        {"MD5",
         {.cn = "x", .san = "DNS:localhost", .digest = EVP_md5()},
         &root,
         "localhost",
         "TLS"},
        {"of a client only",
         {.cn = "x", .san = "DNS:localhost", .eku = "clientAuth"},
         &root,
         "localhost",
         "purpose"},
        {"NUL in the name", {.cn = "x", .nul = true}, &root, "localhost", "ostname mismatch"},
        {"unknown CA", {.cn = "x", .san = "DNS:localhost"}, &stranger, "localhost", "issuer"},
        {"self-signed", {.cn = "x", .san = "DNS:localhost"}, NULL, "localhost", "self-signed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256] = "";
        struct identity id = make(cases[i].wish, cases[i].issuer);
        int error = try(&id, (struct ml_upstream_options){.ca_pem = trusted}, cases[i].host, text);
        if (error != ML_E_UNAVAILABLE || !strstr(text, cases[i].text))
            print_error("%s: %d %s\n", cases[i].what, error, text);
        assert_int_equal(error, ML_E_UNAVAILABLE);
        assert_non_null(strstr(text, cases[i].text));
        drop(&id);
    }
}

static void old_protocols(void **state)
{
    struct identity id = make((struct wish){.cn = "x", .san = "DNS:localhost"}, &root);
    struct world w;
    SSL_CTX *ctx = context_of(&id);
    SSL_CTX_set_min_proto_version(ctx, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(ctx, TLS1_1_VERSION);
    world_open(&w, (struct ml_client_options){0}, ctx);
    struct ml_upstream *u = upstream_of(&w, (struct ml_upstream_options){.ca_pem = trusted});
    struct ml_fetch_result *r = ask(&w, u, "localhost");
    assert_int_equal(r->error, ML_E_UNAVAILABLE);
    ml_fetch_result_free(r);
    ml_upstream_unref(u);
    world_close(&w);
    SSL_CTX_free(ctx);
    drop(&id);
}

/* ca_file adds to the system's roots, ca_pem replaces them. SSL_CERT_FILE (set in main) makes root
 * a system root. */
static void system_roots(void **state)
{
    struct identity id = make((struct wish){.cn = "x", .san = "DNS:localhost"}, &root);
    char *other = pem_of(&stranger, false), path[] = "/tmp/ml-ca-XXXXXX", text[256];
    FILE *file = fdopen(mkstemp(path), "w");
    fputs(other, file);
    fclose(file);
    assert_int_equal(try(&id, (struct ml_upstream_options){.name = "t"}, "localhost", text), 0);
    assert_int_equal(try(&id, (struct ml_upstream_options){.ca_file = path}, "localhost", text), 0);
    assert_int_equal(try(&id, (struct ml_upstream_options){.ca_pem = other}, "localhost", text),
                     ML_E_UNAVAILABLE);
    unlink(path);
    free(other);
    drop(&id);
}

/* S-160: one server, an upstream with a client certificate and one without, in turns. */
static void client_certificates(void **state)
{
    struct identity id = make((struct wish){.cn = "x", .san = "DNS:localhost"}, &root);
    struct identity me = make((struct wish){.cn = "me"}, &root);
    char *cert = pem_of(&me, false), *key = pem_of(&me, true);
    struct world w;
    SSL_CTX *ctx = context_of(&id);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), root.cert);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL); /* asks, does not insist */
    world_open(&w, (struct ml_client_options){0}, ctx);
    struct ml_upstream *known = upstream_of(
        &w, (struct ml_upstream_options){.ca_pem = trusted, .cert_pem = cert, .key_pem = key});
    struct ml_upstream *nobody = upstream_of(&w, (struct ml_upstream_options){.ca_pem = trusted});
    for (int i = 0; i < 20; i++) {
        struct ml_fetch_result *r = ask(&w, i % 2 ? nobody : known, "localhost");
        assert_int_equal(r->error, 0);
        ml_fetch_result_free(r);
    }
    assert_int_equal(w.server.connections, 2);
    assert_int_equal(w.server.peers_with_cert, 1);
    ml_upstream_unref(known);
    ml_upstream_unref(nobody);
    world_close(&w);
    SSL_CTX_free(ctx);
    free(cert);
    free(key);
    drop(&id);
    drop(&me);
}

/* Two workers, each with its loop and its client, share the system's roots. */
static void *work(void *arg)
{
    struct loopback *server = arg;
    struct world w = {0};
    uv_loop_init(&w.loop);
    ml_client_new(&w.client, &(struct ml_client_options){.loop = &w.loop});
    long good = 0;
    for (int i = 0; i < 10; i++) {
        char name[16], url[64];
        snprintf(name, sizeof name, "u%d", i); /* a new one, a new handshake */
        struct ml_upstream *u = upstream_of(&w, (struct ml_upstream_options){.name = name});
        snprintf(url, sizeof url, "https://localhost:%d/ok", server->port);
        struct ml_fetch_result *r = fetch(&w, (struct ml_fetch_request){.upstream = u}, url);
        good += !r->error && r->status == 200;
        ml_fetch_result_free(r);
        ml_upstream_unref(u);
    }
    ml_client_close(w.client, NULL, NULL);
    uv_run(&w.loop, UV_RUN_DEFAULT);
    good += uv_loop_close(&w.loop);
    return (void *)good;
}

static void two_workers(void **state)
{
    struct identity id = make((struct wish){.cn = "x", .san = "DNS:localhost"}, &root);
    struct loopback server;
    pthread_t threads[2];
    SSL_CTX *ctx = context_of(&id);
    loopback_start(&server, 0, ctx);
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, work, &server);
    for (int i = 0; i < 2; i++) {
        void *good;
        pthread_join(threads[i], &good);
        assert_int_equal((long)good, 10);
    }
    loopback_stop(&server);
    SSL_CTX_free(ctx);
    drop(&id);
}

static void bad_options(void **state)
{
    struct world w;
    char *root_key = pem_of(&root, true), *other_key = pem_of(&stranger, true);
    world_open(&w, (struct ml_client_options){0}, NULL);
    struct ml_upstream_options cases[] = {
        {.ca_file = "/nonexistent/ca.pem"},
        {.ca_file = "/dev/null"},
        {.ca_file = "/etc/passwd"},
        {.ca_pem = "no PEM"},
        {.cert_pem = trusted},
        {.key_pem = root_key},
        {.cert_pem = "x", .key_pem = "y"},
        {.cert_pem = trusted, .key_pem = other_key},
        {.ca_pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ml_err err = {0};
        assert_null(ml_upstream_get(w.client, &cases[i], &err));
        assert_true(err.code < 0);
        assert_null(strstr(err.text, "PRIVATE"));
        assert_null(ml_upstream_get(w.client, &cases[i], NULL));
    }
    world_close(&w);
    free(root_key);
    free(other_key);
}

static char system_path[] = "/tmp/ml-system-XXXXXX";

static int tls_open(void **state)
{
    root = make((struct wish){.cn = "Test Root", .ca = true}, NULL);
    stranger = make((struct wish){.cn = "Strange Root", .ca = true}, NULL);
    trusted = pem_of(&root, false);
    FILE *file = fdopen(mkstemp(system_path), "w");
    fputs(trusted, file);
    fclose(file);
    setenv("SSL_CERT_FILE", system_path, 1);
    return ml_client_global_init();
}

static int tls_close(void **state)
{
    unlink(system_path);
    free(trusted);
    drop(&root);
    drop(&stranger);
    ml_client_global_done();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_certificates),   cmocka_unit_test(bad_certificates),
        cmocka_unit_test(old_protocols),       cmocka_unit_test(system_roots),
        cmocka_unit_test(client_certificates), cmocka_unit_test(bad_options),
        cmocka_unit_test(two_workers),
    };
    return cmocka_run_group_tests(tests, tls_open, tls_close);
}
