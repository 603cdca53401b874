/* Sessions as the settings want them: which store, which keys. A store that cannot be reached or
 * opened now is no error: it is tried again, and sessions are unavailable until then (S-420). Main
 * thread, before the workers start. */
#include "engine/internal.h"

#include "base/mem.h"
#include "store/session_lmdb.h"
#include "store/session_memory.h"
#include "store/session_redis.h"

#include <limits.h>
#include <stdio.h>

enum { MEMORY_SESSIONS = 100000, SHARED_SECRET_MIN = 16 };

/* A key of this process. With keep: what the store shall keep, ML_SEAL_KEY_TEXT bytes. */
static int made_keys(struct ml_engine *e, char *keep, struct ml_err *err)
{
    char key[ML_SEAL_KEY_TEXT];
    if (!ml_seal_key_make(key))
        return ml_fail(err, ML_E_IO, "the system's random number generator fails");
    int r = ml_seal_keys_new(&e->seal, ml_str_z(key), err);
    if (keep)
        memcpy(keep, key, sizeof key);
    ml_wipe(key, sizeof key);
    return r;
}

/* Replicas need one key. The ancestor's manifests have no SESSION_KEY, but all replicas have the
 * client's secret. */
static int shared_keys(struct ml_engine *e, struct ml_err *err)
{
    static const uint8_t label[32] = "moonlatch session key 1";
    struct ml_digest digest;
    char hex[65];
    struct ml_str secret = ml_str_z(ml_settings_text(e->settings, "CLIENT_SECRET"));
    if (secret.n < SHARED_SECRET_MIN || !ml_keyed_hash(label, &secret, 1, &digest)) {
        ml_log_text(ML_LOG_WARN, "SESSION_KEY is not set: replicas cannot read each other's "
                                 "sessions, and a restart ends them");
        return made_keys(e, NULL, err);
    }
    ml_log_text(ML_LOG_INFO, "SESSION_KEY is not set: sessions are sealed by a key made of "
                             "CLIENT_SECRET");
    ml_digest_hex(&digest, hex);
    int r = ml_seal_keys_new(&e->seal, ml_str_z(hex), err);
    ml_wipe(hex, sizeof hex);
    ml_wipe(&digest, sizeof digest);
    return r;
}

/* The key that an earlier process kept, or a new one, which the store will keep. */
static int kept_keys(struct ml_engine *e, const char *path, char *keep, struct ml_err *err)
{
    char text[ML_LMDB_KEY_TEXT] = "";
    struct ml_err why = {.text = ""};
    int r = ml_lmdb_key_read(path, text, &why);
    if (r == 0)
        r = ml_seal_keys_new(&e->seal, ml_str_z(text), &why);
    ml_wipe(text, sizeof text);
    if (r == 0)
        return 0;
    if (r == ML_E_NOTFOUND)
        return made_keys(e, keep, err);
    ml_log(ML_LOG_ERROR,
           "the key beside the session store is of no use: its sessions cannot be read",
           ML_FZ("store", path), ML_FZ("reason", why.text));
    return made_keys(e, NULL, err);
}

/* The operator's key. false: there is none, and *r is not touched. */
static bool own_keys(struct ml_engine *e, int *r, struct ml_err *err)
{
    struct ml_err why = {.text = ""};
    const char *list = ml_settings_text(e->settings, "SESSION_KEY");
    if (!*list)
        return false;
    *r = ml_seal_keys_new(&e->seal, ml_str_z(list), &why);
    if (*r != 0)
        ml_fail(err, *r, "SESSION_KEY: %s", why.text);
    return true;
}

/* SESSION_STORE_TYPE=boltdb names the ancestor's file: it stays as it is, for a way back. */
static int open_file(struct ml_engine *e, struct ml_sessions_options *options, bool bolt,
                     struct ml_err *err)
{
    char path[PATH_MAX], keep[ML_SEAL_KEY_TEXT] = "";
    int r;
    snprintf(path, sizeof path, "%s%s", ml_settings_text(e->settings, "SESSION_STORE_PATH"),
             bolt ? ".lmdb" : "");
    if (!own_keys(e, &r, err))
        r = kept_keys(e, path, keep, err);
    if (r == 0) {
        options->backend = &ml_session_lmdb;
        options->store = ml_lmdb_store_new(&(struct ml_lmdb_options){
            .path = path,
            .max_bytes = (uint64_t)ml_settings_int(e->settings, "SESSION_STORE_BYTES"),
            .key = *keep ? keep : NULL});
    }
    ml_wipe(keep, sizeof keep);
    return r;
}

static int open_redis(struct ml_engine *e, struct ml_sessions_options *options, struct ml_err *err)
{
    const struct ml_settings *s = e->settings;
    const char *mode = ml_settings_text(s, "SESSION_STORE_REDIS_MODE");
    const struct ml_redis_options redis = {
        .addresses = ml_settings_text(s, "SESSION_STORE_REDIS_ADDR"),
        .user = ml_settings_text(s, "SESSION_STORE_REDIS_USER"),
        .password = ml_settings_text(s, "SESSION_STORE_REDIS_PWD"),
        .db = (unsigned)ml_settings_int(s, "SESSION_STORE_REDIS_DB"),
        .mode = strcmp(mode, "sentinel") == 0  ? ML_REDIS_SENTINEL
                : strcmp(mode, "cluster") == 0 ? ML_REDIS_CLUSTER
                                               : ML_REDIS_SINGLE,
        .master = ml_settings_text(s, "SESSION_STORE_REDIS_MASTER"),
        .tls = ml_settings_bool(s, "SESSION_STORE_REDIS_TLS"),
        .ca_file = ml_settings_text(s, "SESSION_STORE_REDIS_CA"),
    };
    int r;
    options->backend = &ml_session_redis;
    if (!own_keys(e, &r, err))
        r = shared_keys(e, err);
    return r == 0 ? ml_redis_store_new(&options->store, &redis, err) : r;
}

static int open_memory(struct ml_engine *e, struct ml_sessions_options *options, struct ml_err *err)
{
    int r;
    if (!own_keys(e, &r, err))
        r = made_keys(e, NULL, err);
    options->backend = &ml_session_memory;
    options->store = ml_session_memory_new(MEMORY_SESSIONS);
    return r;
}

int ml_engine_open_sessions(struct ml_engine *e, struct ml_err *err)
{
    const char *type = ml_settings_text(e->settings, "SESSION_STORE_TYPE");
    struct ml_sessions_options options = {
        .cache = e->cache,
        .cache_ms = (uint32_t)ml_settings_int(e->settings, "SESSION_CACHE_SECONDS") * 1000};
    int r = strcmp(type, "redis") == 0 ? open_redis(e, &options, err)
            : strcmp(type, "memory") == 0
                ? open_memory(e, &options, err)
                : open_file(e, &options, strcmp(type, "boltdb") == 0, err);
    options.keys = e->seal;
    if (options.store)
        e->sessions = ml_sessions_new(&options);
    return r;
}

void ml_engine_print_sessions(struct ml_engine *e, struct ml_buf *out)
{
    struct ml_sessions_stats n = ml_sessions_stats(e->sessions);
    const struct {
        const char *name, *type, *help;
        uint64_t value;
    } families[] = {
        {"moonlatch_sessions", "gauge", "Sessions in the store, where it can say.",
         n.store.sessions},
        {"moonlatch_session_store_bytes", "gauge", "Bytes they take.", n.store.bytes},
        {"moonlatch_session_reads_total", "counter", "Reads of the store.", n.reads},
        {"moonlatch_session_writes_total", "counter", "Writes to it.", n.writes},
        {"moonlatch_session_commits_total", "counter", "Commits that carried them.",
         n.store.commits},
        {"moonlatch_session_failures_total", "counter", "Reads and writes that failed.",
         n.failures},
        {"moonlatch_session_unreadable_total", "counter",
         "Records that were sealed by another key, or damaged.", n.unreadable},
        {"moonlatch_session_tombstones", "gauge", "Sessions that ended here lately.", n.tombstones},
        {"moonlatch_session_unconfirmed", "gauge",
         "Those whose end the store has not confirmed yet.", n.unconfirmed},
        {"moonlatch_session_swept_total", "counter", "Expired sessions removed.", n.store.swept},
        {"moonlatch_session_evicted_total", "counter",
         "Sessions removed because the store was full.", n.store.evicted},
        {"moonlatch_session_set_aside_total", "counter", "Damaged stores set aside.",
         n.store.set_aside},
    };
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        ml_metric_type(out, families[i].name, families[i].type, families[i].help);
        ml_metric(out, families[i].name, "", families[i].value);
    }
}
