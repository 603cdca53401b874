/* What went wrong, in words for the log. One thread. */
#include "client/internal.h"

#include <stdio.h>
#include <string.h>

void ml_failure(struct ml_fetch_result *r, int error, const char *text)
{
    r->error = error;
    snprintf(r->text, sizeof r->text, "%s", text);
}

/* "Connection refused" as "connection refused": it stands within a sentence. */
static void fail_connect(struct ml_fetch_result *r, CURL *e)
{
    long number = 0;
    char text[128];
    curl_easy_getinfo(e, CURLINFO_OS_ERRNO, &number);
    ml_failure(r, ML_E_UNAVAILABLE,
               number > 0 ? strerror_r((int)number, text, sizeof text) : "cannot connect");
    r->text[0] = ml_lower(r->text[0]);
}

static void fail_tls(struct ml_fetch_result *r, CURL *e, CURLcode code)
{
    long verify = 0;
    curl_easy_getinfo(e, CURLINFO_SSL_VERIFYRESULT, &verify);
    r->error = ML_E_UNAVAILABLE;
    snprintf(r->text, sizeof r->text, "TLS: %s",
             verify ? ml_trust_error_text(verify) : curl_easy_strerror(code));
}

/* Fixed texts: curl's own messages may quote the URL or the peer. */
void ml_failure_by_code(struct ml_fetch_result *r, CURL *e, CURLcode code)
{
    curl_off_t sent = 0;
    switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
        curl_easy_getinfo(e, CURLINFO_PRETRANSFER_TIME_T, &sent);
        ml_failure(r, ML_E_TIMEOUT, sent ? "no answer in time" : "no connection in time");
        break;
    case CURLE_URL_MALFORMAT:
        ml_failure(r, ML_E_INVALID, "the URL is malformed");
        break;
    case CURLE_UNSUPPORTED_PROTOCOL: /* HTTP/0.9: the URL's scheme was checked before */
    case CURLE_WEIRD_SERVER_REPLY:
        ml_failure(r, ML_E_UNAVAILABLE, "the answer is no HTTP/1.1");
        break;
    case CURLE_FILESIZE_EXCEEDED:
        ml_failure(r, ML_E_TOOBIG, "the answer's body is too big");
        break;
    case CURLE_COULDNT_CONNECT:
        fail_connect(r, e);
        break;
    case CURLE_COULDNT_RESOLVE_HOST:
        ml_failure(r, ML_E_UNAVAILABLE, "host not found");
        break;
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
        ml_failure(r, ML_E_UNAVAILABLE, "the connection was closed before the answer's end");
        break;
    case CURLE_PARTIAL_FILE:
        ml_failure(r, ML_E_UNAVAILABLE, "the answer was cut short");
        break;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CIPHER:
        fail_tls(r, e, code);
        break;
    default:
        ml_failure(r, ML_E_UNAVAILABLE, curl_easy_strerror(code));
    }
}
