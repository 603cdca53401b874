/* What every gate makes of what its gateway sent, and what every gate turns into its wire format:
 * one request, one decision. Plain values in one request's arena; no I/O. */
#pragma once

#include "base/arena.h"
#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

struct ml_header {
    struct ml_str name, value; /* names as they came; compare with ml_str_ieq */
};

/* Our own places, which are answered and not judged; see gate/places.h. */
enum ml_place {
    ML_PLACE_NONE, /* a check */
    ML_PLACE_CALLBACK,
    ML_PLACE_LOGOUT,
    ML_PLACE_BACKCHANNEL_LOGOUT,
    ML_PLACE_FRONTCHANNEL_LOGOUT,
    ML_PLACE_PAGE /* path is what is below the prefix: "/site/homepage" */
};

struct ml_request {
    struct ml_arena *arena; /* lives until the decision is written */
    struct ml_str id;       /* request id: the gateway's x-request-id, or our own */
    struct ml_str method;   /* the client's, upper case as sent */
    struct ml_str scheme;   /* "http" or "https"; "http" when nobody trusted said */
    struct ml_str host;     /* lower case, no port, no trailing dot */
    struct ml_str path;     /* canonical: decoded, dot segments and // resolved, ;params cut */
    struct ml_str raw_path; /* as sent, without the query */
    struct ml_str query;    /* as sent, without the '?' */
    bool has_params;        /* a segment had ;params: public routes do not match it */
    const struct ml_header *headers;
    size_t header_count;
    struct ml_str client_ip; /* the peer's, or what a trusted proxy says */
    bool verify;             /* asked under VERIFY_AUTH_URL: never a login redirect */
    enum ml_place place;
    bool web;             /* asked on the web port: the answer goes to the client as it is */
    struct ml_str body;   /* of the web port only; else empty */
    uint64_t deadline_ms; /* ml_mono_ms() at which the answer is 503 */
};

/* The only header of that name, or p == NULL. *count (NULL allowed) says how many there are. */
struct ml_str ml_request_header(const struct ml_request *r, struct ml_str name, size_t *count);

/* ML_ANSWER: a page or redirect of one of our own places. Only the web port may send it with a
 * status below 300: a gateway takes a 200 for an allow. */
enum ml_action { ML_UNDECIDED, ML_ALLOW, ML_DENY, ML_ANSWER };

/* An upstream header of an allow. */
enum ml_header_op {
    ML_HEADER_SET,   /* to this value, which may be empty */
    ML_HEADER_BLANK, /* we have no value: remove the client's own; if that is not possible, empty it
                      */
    ML_HEADER_REMOVE, /* the policy says that it must not pass */
};

struct ml_upstream_header {
    struct ml_str name, value;
    enum ml_header_op op;
};

/* One line of the explanation. */
struct ml_step {
    struct ml_str name;    /* "opaque:corp" */
    struct ml_str outcome; /* "accept" "skip" "reject" "unavailable" "error" "yes" "no" ... */
    struct ml_str reason;  /* may be empty; never a credential */
};

enum { ML_STEPS_MAX = 32, ML_UPSTREAM_HEADERS_MAX = 32, ML_CLIENT_HEADERS_MAX = 16 };

struct ml_decision {
    enum ml_action action;
    int status; /* of a deny: 301 to 599; of an answer: 200 to 599; of an allow: 200, and the gate
                   knows better */
    struct ml_str reason; /* stable word: "allowed" "public" "unauthenticated" "denied"
                             "unavailable" "error" "login" */
    struct ml_str user;   /* who, for the log; empty when nobody */
    struct ml_str route;  /* the route's name */
    /* allow */
    struct ml_upstream_header upstream[ML_UPSTREAM_HEADERS_MAX];
    size_t upstream_count;
    struct ml_str strip; /* "a,b": further names that the gateway must drop (aliases with _ or .) */
    /* deny, answer */
    struct ml_header client[ML_CLIENT_HEADERS_MAX]; /* to the client */
    size_t client_count;
    struct ml_str content_type, body;
    /* explanation */
    struct ml_step steps[ML_STEPS_MAX];
    size_t step_count;
};

/* Empty, without touching the arrays beyond their counts: they are large and this is the hot path.
 */
void ml_decision_init(struct ml_decision *d);
/* The first terminal answer wins: each returns false, and changes nothing, when there is one
 * already. */
bool ml_decision_allow(struct ml_decision *d);
bool ml_decision_deny(struct ml_decision *d, int status, struct ml_str reason, struct ml_str body);
bool ml_decision_answer(struct ml_decision *d, int status, struct ml_str reason,
                        struct ml_str content_type, struct ml_str body);
/* Adds a step; past ML_STEPS_MAX the last one says "...". Texts are not copied. */
void ml_decision_step(struct ml_decision *d, struct ml_str name, struct ml_str outcome,
                      struct ml_str reason);
