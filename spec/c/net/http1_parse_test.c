/* What reaches the handler and what is refused: RFC 9112 and S-120 to S-130, S-133, S-270 to S-282,
 * S-445. */
#include "c/net/http1_harness.h"

struct text_case {
    const char *name;
    const char *bytes;
    size_t n; /* of bytes */
    const char *answers;
};

#define H "Host: a\r\n"
#define GET "GET / HTTP/1.1\r\n"
#define POST "POST / HTTP/1.1\r\n" H
#define OK "200 "
#define BAD "400 close "
#define CANARY "GET /canary HTTP/1.1\r\n" H "\r\n"
#define TE "Transfer-Encoding: chunked\r\n"
/* bytes may hold NUL */
#define T(name, bytes, answers)                                                                    \
    {                                                                                              \
        name, bytes, sizeof(bytes) - 1, answers                                                    \
    }

static const struct text_case cases[] = {
    T("plain", GET H "\r\n", OK),
    T("envoy",
      "GET /p/ok?q=1&r=a%20b HTTP/1.1\r\nhost: app.example.org\r\ncontent-length: 0\r\ncookie: "
      "a=1; "
      "b=2\r\n"
      "authorization: Bearer T\r\nx-envoy-internal: true\r\nx-envoy-expected-rq-timeout-ms: "
      "10000\r\n\r\n",
      OK),
    T("two at once", GET H "\r\n" GET H "\r\n", "200 200 "),
    T("one empty line first", "\r\n" GET H "\r\n", OK),
    T("an empty line between", GET H "\r\n\r\n" GET H "\r\n", "200 200 "),
    T("two empty lines first", "\r\n\r\n" GET H "\r\n", BAD),
    T("bare LF first", "\n" GET H "\r\n", BAD),
    T("bare CR first", "\r" GET H "\r\n", BAD),
    T("1.0 closes", "GET / HTTP/1.0\r\n\r\n", "200 close "),
    T("1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", OK),
    T("close asked", GET H "Connection: close\r\n\r\n" CANARY, "200 close "),
    T("close in a list", GET H "Connection: x, close\r\n\r\n" CANARY, "200 close "),
    T("absolute form", "GET http://b/x HTTP/1.1\r\n" H "\r\n", OK),
    T("asterisk", "OPTIONS * HTTP/1.1\r\n" H "\r\n", OK),
    T("asterisk of GET", "GET * HTTP/1.1\r\n" H "\r\n", BAD),
    T("asterisk and more", "OPTIONS *x HTTP/1.1\r\n" H "\r\n", BAD),
    T("empty value", GET H "A:\r\nB: \r\nC: \t \r\n\r\n", OK),
    T("tab in a value", GET H "A: x\ty\r\n\r\n", OK),
    T("obs-text in a value", GET H "A: \xe4\r\n\r\n", OK),
    T("port in host", GET "Host: [::1]:80\r\n\r\n", OK),
    /* S-120 */
    T("length and coding", POST "Content-Length: 5\r\n" TE "\r\n0\r\n\r\n" CANARY, BAD),
    T("coding and length", POST TE "Content-Length: 5\r\n\r\n0\r\n\r\n" CANARY, BAD),
    T("coding and length 0", POST TE "Content-Length: 0\r\n\r\n0\r\n\r\n" CANARY, BAD),
    /* S-122, S-271 */
    T("space before colon", GET "Host : a\r\n\r\n" CANARY, BAD),
    T("tab before colon", POST "Content-Length\t: 1\r\n\r\nx" CANARY, BAD),
    /* S-123, S-282 */
    T("bare LF after the request line", "GET / HTTP/1.1\n" H "\r\n", BAD),
    T("bare LF after a field", GET "Host: a\n\r\n", BAD),
    T("bare LF at the end", GET H "\n" CANARY, BAD),
    T("bare CR after the request line", "GET / HTTP/1.1\r" H "\r\n", BAD),
    T("bare CR after a field", GET "Host: a\rB: c\r\n\r\n", BAD),
    T("bare CR at the end", GET H "\r" CANARY, BAD),
    T("CR CR LF", GET "Host: a\r\r\n\r\n", BAD),
    T("LF CR", GET "Host: a\n\rB: c\r\n\r\n", BAD),
    T("CR LF CR X", GET H "\rX", BAD),
    /* S-124, S-279 */
    T("chunked", POST TE "\r\n3\r\nabc\r\n0\r\n\r\n" GET H "\r\n", "200 200 "),
    T("chunked, upper case", POST "TRANSFER-ENCODING:CHUNKED\r\n\r\n0\r\n\r\n" GET H "\r\n",
      "200 200 "),
    T("trailers are dropped", POST TE "\r\n1\r\na\r\n0\r\nHost: b\r\nA: b\r\n\r\n" GET H "\r\n",
      "200 200 "),
    T("small extension", POST TE "\r\n3;a=b;c=\"d\"\r\nabc\r\n0\r\n\r\n" GET H "\r\n", "200 200 "),
    T("hex prefix", POST TE "\r\n0x3\r\nabc\r\n0\r\n\r\n" CANARY, OK),
    T("plus", POST TE "\r\n+3\r\nabc\r\n0\r\n\r\n" CANARY, OK),
    T("space before size", POST TE "\r\n 3\r\nabc\r\n0\r\n\r\n" CANARY, OK),
    T("space after size", POST TE "\r\n3 \r\nabc\r\n0\r\n\r\n" CANARY, OK),
    T("17 digits", POST TE "\r\n10000000000000003\r\nabc\r\n0\r\n\r\n" CANARY, OK),
    T("too long by one", POST TE "\r\n3\r\nabcd\r\n0\r\n\r\n" CANARY, OK),
    T("bare LF after size", POST TE "\r\n3\nabc\r\n0\r\n\r\n" CANARY, OK),
    T("bare LF after data", POST TE "\r\n3\r\nabc\n0\r\n\r\n" CANARY, OK),
    T("LF in an extension", POST TE "\r\n3;a\nb\r\nabc\r\n0\r\n\r\n" CANARY, OK),
    T("LF in a quoted extension", POST TE "\r\n3;a=\"\n\"\r\nabc\r\n0\r\n\r\n" CANARY, OK),
    /* S-125, S-278 */
    T("length +1", POST "Content-Length: +1\r\n\r\nx" CANARY, BAD),
    T("length -1", POST "Content-Length: -1\r\n\r\nx" CANARY, BAD),
    T("length 0x1", POST "Content-Length: 0x1\r\n\r\nx" CANARY, BAD),
    T("length 1,1", POST "Content-Length: 1,1\r\n\r\nx" CANARY, BAD),
    T("length 1, 2", POST "Content-Length: 1, 2\r\n\r\nx" CANARY, BAD),
    T("length 1 1", POST "Content-Length: 1 1\r\n\r\nx" CANARY, BAD),
    T("length blank", POST "Content-Length: \r\n\r\n" CANARY, BAD),
    T("length empty", POST "Content-Length:\r\n\r\n" CANARY, BAD),
    T("length 2^64", POST "Content-Length: 18446744073709551616\r\n\r\n" CANARY, BAD),
    T("length 2^64+1", POST "Content-Length: 18446744073709551617\r\n\r\nx" CANARY, BAD),
    T("two lengths, equal", POST "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx" CANARY, BAD),
    T("two lengths, different", POST "Content-Length: 1\r\nContent-Length: 0\r\n\r\nx" CANARY, BAD),
    T("two lengths of nothing", POST "Content-Length: 0\r\nContent-Length: 0\r\n\r\n" CANARY, BAD),
    T("blank before length", "POST / HTTP/1.1\r\n Content-Length: 1\r\n" H "\r\nx" CANARY, BAD),
    T("length", POST "Content-Length: 3\r\n\r\nabc" GET H "\r\n", "200 200 "),
    T("length with zeros", POST "Content-Length: 003\r\n\r\nabc" GET H "\r\n", "200 200 "),
    T("length of a GET", GET H "Content-Length: 3\r\n\r\nabc" GET H "\r\n", "200 200 "),
    T("length over the limit", POST "Content-Length: 65537\r\n\r\n", "413 close "),
    T("length far over the limit", POST "Content-Length: 10737418240\r\n\r\n", "413 close "),
    /* S-126, S-270, S-272, S-273 */
    T("obs-fold", GET H "A: x\r\n y\r\n\r\n" CANARY, BAD),
    T("obs-fold by tab", GET H "A: x\r\n\ty\r\n\r\n" CANARY, BAD),
    T("obs-fold of an empty value", GET H "A:\r\n y\r\n\r\n" CANARY, BAD),
    T("blank before the first field", GET " A: x\r\n" H "\r\n" CANARY, BAD),
    T("NUL in a value", GET H "A: x\0y\r\n\r\n" CANARY, BAD),
    T("NUL in a name", GET H "A\0: xy\r\n\r\n" CANARY, BAD),
    T("NUL in the target", "GET /\0 HTTP/1.1\r\n" H "\r\n" CANARY, BAD),
    T("control in a value", GET H "A: x\x01\r\n\r\n" CANARY, BAD),
    T("DEL in a value", GET H "A: x\x7f\r\n\r\n" CANARY, BAD),
    T("empty name", GET H ": x\r\n\r\n" CANARY, BAD),
    T("no colon", GET H "A x\r\n\r\n" CANARY, BAD),
    T("parenthesis in a name", GET H "A(: x\r\n\r\n" CANARY, BAD),
    T("obs-text in a name", GET H "A\xe4: x\r\n\r\n" CANARY, BAD),
    /* S-127, S-274 */
    T("no host", GET "\r\n", BAD),
    T("two hosts", GET H H "\r\n", BAD),
    T("two hosts in 1.0", "GET / HTTP/1.0\r\n" H H "\r\n", BAD),
    T("two hosts, one value", GET "Host: a,b\r\n\r\n", BAD),
    T("userinfo in host", GET "Host: a@b\r\n\r\n", BAD),
    T("path in host", GET "Host: a/b\r\n\r\n", BAD),
    T("space in host", GET "Host: a b\r\n\r\n", BAD),
    T("empty host", GET "Host:\r\n\r\n", BAD),
    T("blank host", GET "Host: \r\n\r\n", BAD),
    T("absolute form without host", "GET http://b/x HTTP/1.1\r\n\r\n", BAD),
    /* S-128 */
    T("0.9", "GET /\r\n", BAD),
    T("0.9 spelled out", "GET / HTTP/0.9\r\n" H "\r\n", "505 close "),
    T("1.2", "GET / HTTP/1.2\r\n" H "\r\n", "505 close "),
    T("2.0", "GET / HTTP/2.0\r\n" H "\r\n", "505 close "),
    T("1.1.1", "GET / HTTP/1.1.1\r\n" H "\r\n", BAD),
    T("1.10", "GET / HTTP/1.10\r\n" H "\r\n", BAD),
    T("lower case version", "GET / http/1.1\r\n" H "\r\n", BAD),
    T("preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505 close "),
    T("unknown method", "FOO / HTTP/1.1\r\n" H "\r\n", "501 close "),
    T("longer than a method", "GETX / HTTP/1.1\r\n" H "\r\n", "501 close "),
    T("lower case method", "get / HTTP/1.1\r\n" H "\r\n", "501 close "),
    T("method with control", "GE\x01T / HTTP/1.1\r\n" H "\r\n", BAD),
    T("RTSP method", "DESCRIBE / HTTP/1.1\r\n" H "\r\n", "501 close "),
    T("TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", BAD),
    T("two spaces before the target", "GET  / HTTP/1.1\r\n" H "\r\n", BAD),
    T("two spaces after the target", "GET /  HTTP/1.1\r\n" H "\r\n", BAD),
    T("tab for a space", "GET\t/ HTTP/1.1\r\n" H "\r\n", BAD),
    T("space after the version", "GET / HTTP/1.1 \r\n" H "\r\n", BAD),
    T("blank before the method", " GET / HTTP/1.1\r\n" H "\r\n", BAD),
    T("control in the target", "GET /\x01 HTTP/1.1\r\n" H "\r\n", BAD),
    T("tab in the target", "GET /\tx HTTP/1.1\r\n" H "\r\n", BAD),
    T("relative target", "GET x HTTP/1.1\r\n" H "\r\n", BAD),
    /* S-129 */
    T("h2c",
      GET H
      "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n" GET H
      "\r\n",
      "200 200 "),
    T("h2c with a body",
      POST "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc" GET H "\r\n",
      "200 200 "),
    T("websocket", GET H "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" GET H "\r\n",
      "200 200 "),
    /* S-130 */
    T("connect", "CONNECT a:80 HTTP/1.1\r\n" H "\r\n" CANARY, "501 close "),
    T("connect with a body", "CONNECT a:80 HTTP/1.1\r\n" H "Content-Length: 60\r\n\r\n" CANARY,
      "501 close "),
    T("trace", "TRACE / HTTP/1.1\r\n" H "\r\n" CANARY, "501 close "),
    /* S-132 */
    T("expect", POST "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc" CANARY, "200 close "),
    T("expect without body", GET H "Expect: 100-continue\r\n\r\n" GET H "\r\n", "200 200 "),
    /* S-276 */
    T("coding gzip", POST "Transfer-Encoding: gzip\r\n\r\n" CANARY, BAD),
    T("coding gzip, chunked", POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" CANARY, BAD),
    T("coding chunked, gzip", POST "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" CANARY, BAD),
    T("coding identity", POST "Transfer-Encoding: identity\r\n\r\n" CANARY, BAD),
    T("coding empty", POST "Transfer-Encoding:\r\n\r\n" CANARY, BAD),
    T("coding twice", POST TE TE "\r\n0\r\n\r\n" CANARY, BAD),
    T("coding in 1.0", "POST / HTTP/1.0\r\n" TE "\r\n0\r\n\r\n" CANARY, BAD),
    /* S-280 */
    T("incomplete head", GET H, ""),
    T("incomplete body", POST "Content-Length: 3\r\n\r\nab", OK),
};

static void check_case(const struct fixture *f, const struct text_case *c, const char *how)
{
    char got[4096];
    read_answers(f, false, got, sizeof got);
    if (strcmp(got, c->answers) != 0)
        fail_msg("%s, %s: got '%s', expected '%s'", c->name, how, got, c->answers);
    if (strstr(f->targets, "/canary"))
        fail_msg("%s, %s: the canary was handled", c->name, how);
    if (strstr(got, "close") && !f->saw_eof)
        fail_msg("%s, %s: not closed", c->name, how);
}

static void whole(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dial(f);
        say(f, cases[i].bytes, cases[i].n);
        check_case(f, &cases[i], "whole");
    }
    fixture_free(f);
}

/* S-133: the answer does not depend on how the bytes arrive. */
static void cut_everywhere(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    char how[32];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t n = cases[i].n;
        for (size_t cut = 1; cut < n; cut++) {
            dial(f);
            say(f, cases[i].bytes, cut);
            say(f, cases[i].bytes + cut, n - cut);
            snprintf(how, sizeof how, "cut at %zu", cut);
            check_case(f, &cases[i], how);
        }
    }
    fixture_free(f);
}

static void byte_by_byte(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dial(f);
        for (size_t at = 0; at < cases[i].n; at++)
            if (!say(f, cases[i].bytes + at, 1))
                break;
        check_case(f, &cases[i], "byte by byte");
    }
    fixture_free(f);
}

/* ---- S-121: Transfer-Encoding that somebody else may read otherwise ---- */

static unsigned mutations;

/* Both ways round: what one reader takes for the body, the other takes for the canary. */
static void try_coding(struct fixture *f, const char *line, size_t n)
{
    static const char by_length[] = "0\r\n\r\n" CANARY,
                      by_chunk[] = "3c\r\n" CANARY CANARY "0\r\n\r\n";
    const struct {
        size_t length;
        const char *body;
    } ways[] = {{sizeof by_length - 1, by_length}, {4, by_chunk}};
    for (size_t w = 0; w < 2; w++)
        for (int first = 0; first < 2; first++) {
            char bytes[1024], length[40];
            snprintf(length, sizeof length, "Content-Length: %zu\r\n", ways[w].length);
            size_t at = (size_t)snprintf(bytes, sizeof bytes, POST "%s", first ? length : "");
            memcpy(bytes + at, line, n);
            at += n;
            at += (size_t)snprintf(bytes + at, sizeof bytes - at, "\r\n%s\r\n%s",
                                   first ? "" : length, ways[w].body);
            dial(f);
            say(f, bytes, at);
            mutations++;
            if (strstr(f->targets, "/canary") || f->handled)
                fail_msg("'%.*s' (%d, %d): %s", (int)n, line, (int)w, first, f->targets);
            expect_answers(f, BAD);
        }
}

static void codings(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    static const char name[] = "Transfer-Encoding", plain[] = "Transfer-Encoding: chunked";
    char line[128];
    /* a byte that no token has, anywhere in the name */
    for (size_t at = 0; at <= sizeof name - 1; at++)
        for (unsigned c = 0; c < 256; c += c < 0x21 || c > 0x7d ? 1 : 7) {
            if (c > 0x20 && c < 0x7f && !strchr("\"(),/:;<=>?@[\\]{}", (int)c))
                continue;
            if (c == ':')
                continue; /* ends the name: another field */
            int n = snprintf(line, sizeof line, "%.*s%c%s: chunked", (int)at, name, c ? (int)c : 1,
                             name + at);
            if (!c)
                line[at] = 0;
            try_coding(f, line, (size_t)n);
        }
    /* any byte, anywhere in the value: chunked is chunked, all else is refused, and so are both
     * with a length */
    for (size_t at = sizeof name; at <= sizeof plain - 1; at++)
        for (unsigned c = 0; c < 256; c++) {
            if (c == '\r' || c == '\n')
                continue; /* below */
            int n =
                snprintf(line, sizeof line, "%.*s%c%s", (int)at, plain, c ? (int)c : 1, plain + at);
            if (!c)
                line[at] = 0;
            try_coding(f, line, (size_t)n);
        }
    static const char *const lines[] = {
        "Transfer-Encoding: chunked",
        "TRANSFER-ENCODING: CHUNKED",
        "transfer-encoding:chunked",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked chunked",
        "Transfer-Encoding: chunk",
        "Transfer-Encoding:",
        "Transfer-Encoding\r\n: chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding:\r\n\tchunked",
        "Transfer-Encoding\n: chunked",
        "Transfer-Encoding: chunked\n",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        " Transfer-Encoding: chunked",
        "\tTransfer-Encoding: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\n x",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding:\r\nTransfer-Encoding: chunked",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        try_coding(f, lines[i], strlen(lines[i]));
    assert_true(mutations > 1768);
    fixture_free(f);
}

/* ---- limits, at L-1, L and L+1 ---- */

/* "<prefix>xxxx<suffix>" of exactly `total` bytes. */
static char *padded(const char *prefix, const char *suffix, size_t total)
{
    size_t before = strlen(prefix), after = strlen(suffix);
    char *p = ml_xmalloc(total + 1);
    assert_true(total >= before + after);
    memset(p, 'x', total);
    memcpy(p, prefix, before);
    memcpy(p + total - after, suffix, after);
    p[total] = 0;
    return p;
}

static void send_padded(struct fixture *f, const char *prefix, const char *suffix, size_t total,
                        size_t cut, const char *answers)
{
    char *bytes = padded(prefix, suffix, total);
    dial(f);
    for (size_t at = 0; at < total; at += cut)
        if (!say(f, bytes + at, cut < total - at ? cut : total - at))
            break;
    free(bytes);
    expect_answers(f, answers);
}

static void limit_of_target(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    const size_t rest = strlen("GET  HTTP/1.1\r\n" H "\r\n"), max = 16 * 1024;
    const size_t cuts[] = {1 << 20, 4096, 1000};
    for (size_t i = 0; i < 3; i++) {
        send_padded(f, "GET /", " HTTP/1.1\r\n" H "\r\n", rest + max - 1, cuts[i], OK);
        send_padded(f, "GET /", " HTTP/1.1\r\n" H "\r\n", rest + max, cuts[i], OK);
        assert_int_equal(strlen(f->targets), max + 1);
        send_padded(f, "GET /", " HTTP/1.1\r\n" H "\r\n", rest + max + 1, cuts[i], "414 close ");
        assert_int_equal(f->handled, 0);
    }
    fixture_free(f);
}

static void limit_of_head(void **state)
{
    const struct ml_http_limits small = {.target_bytes = 100,
                                         .header_bytes = 1000,
                                         .header_count = 10,
                                         .connections = 4,
                                         .header_ms = 5000,
                                         .idle_ms = 5000,
                                         .body_ms = 5000,
                                         .write_ms = 5000};
    const size_t cuts[] = {1 << 20, 700, 1};
    for (int which = 0; which < 2; which++) {
        struct fixture *f = fixture_new(which ? &small : NULL, false);
        size_t max = which ? small.header_bytes : ml_http_default_limits.header_bytes;
        for (size_t i = 0; i < (which ? 3 : 2); i++) {
            send_padded(f, GET H "A: ", "\r\n\r\n", max - 1, cuts[i], OK);
            send_padded(f, GET H "A: ", "\r\n\r\n", max, cuts[i], OK);
            send_padded(f, GET H "A: ", "\r\n\r\n", max + 1, cuts[i], "431 close ");
            assert_int_equal(f->handled, 0);
            send_padded(f, GET H, ": x\r\n\r\n", max + 1, cuts[i], "431 close "); /* a long name */
        }
        fixture_free(f);
    }
}

static void limit_of_count(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    for (int extra = -1; extra < 2; extra++) {
        dial(f);
        say_z(f, GET H);
        for (int i = 1; i < 128 + extra; i++)
            say_z(f, "A: b\r\n");
        say_z(f, "\r\n");
        expect_answers(f, extra == 1 ? "431 close " : OK);
    }
    fixture_free(f);
}

static void limit_of_body(void **state)
{
    const size_t max = 64 * 1024;
    for (int keep = 0; keep < 2; keep++) {
        struct fixture *f = fixture_new(NULL, keep);
        for (size_t n = max - 1; n <= max + 1; n++) {
            char *body = padded("", "", n), head[100];
            snprintf(head, sizeof head, POST "Content-Length: %zu\r\n\r\n", n);
            dial(f);
            say_z(f, head);
            say(f, body, n);
            say_z(f, GET H "\r\n");
            expect_answers(f, n > max ? "413 close " : "200 200 ");
            free(body);
        }
        fixture_free(f);
    }
}

/* A body larger than any buffer passes through it. */
static void body_over_buffer(void **state)
{
    struct ml_http_limits limits = ml_http_default_limits;
    limits.header_bytes = 1000;
    for (int keep = 0; keep < 2; keep++) {
        struct fixture *f = fixture_new(&limits, keep);
        char *body = padded("b", "e", 60000);
        dial(f);
        say_z(f, POST "Content-Length: 60000\r\n\r\n");
        say(f, body, 60000);
        if (keep) {
            assert_int_equal(f->body_n, 60000);
            assert_memory_equal(f->body, body, 60000);
        }
        say_z(f, GET H "\r\n");
        expect_answers(f, "200 200 ");
        free(body);
        fixture_free(f);
    }
}

/* The wire form counts: data, sizes, extensions (S-124), trailers. "400\r\n" + 1024 + "\r\n" is
 * 1031. */
static void limit_of_chunks(void **state)
{
    static const char *const last[][2] = {
        {"", "0\r\n\r\n"}, {"00", "0\r\n\r\n"}, {"0;", "\r\n\r\n"}, {"0\r\nT: ", "\r\n\r\n"}};
    const struct ml_http_limits limits = {.target_bytes = 100,
                                          .header_bytes = 1000,
                                          .header_count = 10,
                                          .body_bytes = 1031 * 4 + 5,
                                          .connections = 4,
                                          .header_ms = 5000,
                                          .idle_ms = 5000,
                                          .body_ms = 5000,
                                          .write_ms = 5000};
    char *chunk = padded("400\r\n", "\r\n", 1031);
    for (int keep = 0; keep < 2; keep++)
        for (size_t i = 0; i < 4; i++) {
            struct fixture *f = fixture_new(&limits, keep);
            dial(f);
            say_z(f, POST TE "\r\n");
            for (int n = 0; n < 4; n++)
                say(f, chunk, 1031);
            char *end = padded(last[i][0], last[i][1], i < 2 ? 5 + 2 * i : 2000);
            say_z(f, end);
            say_z(f, GET H "\r\n");
            free(end);
            expect_answers(f, i == 0 ? "200 200 " : keep ? "413 close " : OK);
            assert_int_equal(f->saw_eof, i != 0);
            fixture_free(f);
        }
    free(chunk);
}

/* ---- what the handler sees ---- */

static void fields(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    dial(f);
    say_z(f, "DELETE /a?b=c HTTP/1.1\r\nhost: a\r\nX-One:  1 2 \t\r\nx-one:3\r\nEmpty:\r\n\r\n");
    assert_string_equal(f->method, "DELETE");
    assert_string_equal(f->targets, "/a?b=c ");
    assert_string_equal(f->heads, "host=a\nX-One=1 2\nx-one=3\nEmpty=\n");
    assert_string_equal(f->peer_name, "192.0.2.1");
    assert_int_equal(f->minor, 1);
    say_z(f, "HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_int_equal(f->minor, 0);
    fixture_free(f);
}

/* The slices hold while the head grows over several buffers, and while more arrives behind it. */
static void fields_over_growth(void **state)
{
    struct fixture *f = fixture_new(NULL, false);
    char *value = padded("first", "last", 30000), *want = ml_xmalloc(31000);
    dial(f);
    say_z(f, GET H "\r\n" GET H "Big: ");
    for (size_t at = 0; at < 30000; at += 999)
        say(f, value + at, 30000 - at < 999 ? 30000 - at : 999);
    say_z(f, "\r\nEnd: x\r\n\r\n");
    snprintf(want, 31000, "Host=a\nBig=%s\nEnd=x\n", value);
    assert_string_equal(f->heads, want);
    expect_answers(f, "200 200 ");
    free(want);
    free(value);
    fixture_free(f);
}

static void kept_bodies(void **state)
{
    struct fixture *f = fixture_new(NULL, true);
    dial(f);
    say_z(f, POST "Content-Length: 3\r\n\r\nab");
    assert_int_equal(f->handled, 0);
    say_z(f, "c" POST TE "\r\n2\r\nde\r\n3;x\r\nfgh\r\n0\r\n\r\n");
    assert_int_equal(f->handled, 2);
    assert_int_equal(f->body_n, 5);
    assert_memory_equal(f->body, "defgh", 5);
    say_z(f, GET H "\r\n");
    assert_int_equal(f->body_n, 0);
    say_z(f, POST TE "\r\n2\r\nde\r\nz");
    expect_answers(f, "200 200 200 400 close ");
    assert_int_equal(f->handled, 3);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole),           cmocka_unit_test(cut_everywhere),
        cmocka_unit_test(byte_by_byte),    cmocka_unit_test(codings),
        cmocka_unit_test(limit_of_target), cmocka_unit_test(limit_of_head),
        cmocka_unit_test(limit_of_count),  cmocka_unit_test(limit_of_body),
        cmocka_unit_test(limit_of_chunks), cmocka_unit_test(body_over_buffer),
        cmocka_unit_test(fields),          cmocka_unit_test(fields_over_growth),
        cmocka_unit_test(kept_bodies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
