//! Every setting in one table: its flag, variable, TOML key, default and the sentence of `--help`.

/// What a value has to look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Text that no output shows; it has no flag and may stand in a file that `NAME_FILE` names.
    Secret,
    /// A URL that may carry a password: no flag, and shown without it.
    Url,
    /// A path.
    Path,
    /// A whole number in these bounds.
    Count(u64, u64),
    /// Seconds, with decimals, in these bounds.
    Seconds(f64, f64),
    /// A decimal number in these bounds.
    Decimal(f64, f64),
    /// Bytes, also as `64KiB`, `1MiB`, in these bounds.
    Bytes(u64, u64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// An integer from 1 to 8; everything else is mended to 4 with a warning, by the original's rule.
    ThreadCount,
}

impl Kind {
    /// True for what must not stand in `ps`, in `/proc/PID/environ` or in any output.
    pub fn is_secret(self) -> bool {
        matches!(self, Kind::Secret | Kind::Url)
    }
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// The TOML key, and the name inside the program.
    pub key: &'static str,
    /// The environment variable.
    pub env: &'static str,
    /// The long flag without its dashes; empty where there is none.
    pub flag: &'static str,
    /// What it must look like.
    pub kind: Kind,
    /// As an operator would write it; empty means not set.
    pub default: &'static str,
    /// The heading in `--help`.
    pub group: &'static str,
    /// One line.
    pub help: &'static str,
    /// May be given several times (flag) or as a list (TOML); a comma separates them in a variable.
    pub many: bool,
}

const SERVER: &str = "Server";
const WORKERS: &str = "Workers";
const HTTP: &str = "HTTP";
const LIMITS: &str = "Rate limits";
const LOGS: &str = "Logs";
const CHAT: &str = "Chat and model";
const PROCESS: &str = "Process";

const fn one(
    group: &'static str,
    key: &'static str,
    env: &'static str,
    flag: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { key, env, flag, kind, default, group, help, many: false }
}

const fn many(setting: Setting) -> Setting {
    Setting { many: true, ..setting }
}

use Kind::{Bytes, Count, Decimal, OneOf, Path, Seconds, Secret, Text, ThreadCount, Url};

const DAY_S: f64 = 86_400.0;

/// The table. Its order is the order of `--help` and of `chatcorn config`.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    many(one(SERVER, "bind", "BIND", "bind", Text, "0.0.0.0:7860", "where to listen: host:port, unix:/path, or fd://N or fd://NAME from systemd; repeatable")),
    one(SERVER, "port", "PORT", "", Count(1, 65_535), "", "a port on every address, when bind is not set (container platforms)"),
    many(one(SERVER, "admin_bind", "ADMIN_BIND", "admin-bind", Text, "", "where operators find /metrics and /status: host:port, unix:/path, or fd://NAME")),
    one(SERVER, "backlog", "BACKLOG", "backlog", Count(1, 65_535), "2048", "connections that the kernel holds until one is accepted"),

    one(WORKERS, "workers", "WEB_CONCURRENCY", "workers", Count(1, 64), "4", "worker processes"),
    one(WORKERS, "threads", "THREADS", "threads", Count(1, 16), "2", "runtime threads of each worker"),
    one(WORKERS, "timeout", "TIMEOUT", "timeout", Seconds(0.1, DAY_S), "120", "seconds for a request, whole"),
    one(WORKERS, "hang_timeout", "HANG_TIMEOUT", "hang-timeout", Seconds(0.5, DAY_S), "30", "seconds after which a worker whose event loop does not turn is killed"),
    one(WORKERS, "graceful_timeout", "GRACEFUL_TIMEOUT", "graceful-timeout", Seconds(0.0, DAY_S), "30", "seconds to finish what is under way when the server stops"),
    one(WORKERS, "drain_delay", "DRAIN_DELAY", "drain-delay", Seconds(0.0, DAY_S), "0", "seconds after TERM in which /readyz is 503 and connections are still accepted"),
    one(WORKERS, "boot_timeout", "BOOT_TIMEOUT", "boot-timeout", Seconds(0.1, DAY_S), "10", "seconds in which a worker must be ready"),
    one(WORKERS, "worker_connections", "WORKER_CONNECTIONS", "worker-connections", Count(1, 1_000_000), "1000", "connections of one worker at once"),
    one(WORKERS, "max_requests", "MAX_REQUESTS", "max-requests", Count(0, 1 << 40), "0", "requests after which a worker is replaced, its successor ready first; 0: never"),
    one(WORKERS, "max_requests_jitter", "MAX_REQUESTS_JITTER", "max-requests-jitter", Count(0, 1 << 40), "0", "at most so many more, at random, so that workers are not replaced together"),
    one(WORKERS, "max_rss", "MAX_RSS", "max-rss", Bytes(0, 1 << 44), "0", "resident memory beyond which a worker is replaced, as 512MiB; 0: never"),

    one(HTTP, "keep_alive", "KEEP_ALIVE", "keep-alive", Seconds(0.0, DAY_S), "75", "seconds that an idle connection is kept"),
    one(HTTP, "header_timeout", "HEADER_TIMEOUT", "header-timeout", Seconds(0.1, DAY_S), "10", "seconds for a request's head to arrive"),
    one(HTTP, "body_timeout", "BODY_TIMEOUT", "body-timeout", Seconds(0.1, DAY_S), "30", "seconds for a request's body to arrive or an answer to be taken, 1 more for each KiB"),
    one(HTTP, "limit_request_line", "LIMIT_REQUEST_LINE", "limit-request-line", Bytes(64, 1 << 20), "8190", "longest request line"),
    one(HTTP, "limit_request_fields", "LIMIT_REQUEST_FIELDS", "limit-request-fields", Count(1, 1000), "100", "most header fields of a request"),
    one(HTTP, "limit_request_field_size", "LIMIT_REQUEST_FIELD_SIZE", "limit-request-field-size", Bytes(64, 1 << 20), "8190", "longest header field"),
    one(HTTP, "limit_head", "LIMIT_HEAD", "limit-head", Bytes(8192, 1 << 20), "64KiB", "longest head of a request, whole"),
    one(HTTP, "limit_body", "LIMIT_BODY", "limit-body", Bytes(1024, 1 << 30), "1MiB", "longest request body"),
    one(HTTP, "forwarded_allow_ips", "FORWARDED_ALLOW_IPS", "forwarded-allow-ips", Text, "127.0.0.1,::1", "proxies (addresses or CIDRs) whose X-Forwarded-For is believed"),
    one(HTTP, "api_keys_file", "API_KEYS_FILE", "api-keys-file", Path, "", "file of API keys (chatcorn key new); when it is set, every /api and /v1 request needs one"),
    one(HTTP, "certfile", "CERTFILE", "certfile", Path, "", "certificate chain (PEM): TLS, with HTTP/2 for clients that ask; reread on reload"),
    one(HTTP, "keyfile", "KEYFILE", "keyfile", Path, "", "the certificate's key (PEM)"),
    one(HTTP, "http2_clear", "HTTP2_CLEAR", "http2-clear", OneOf(&["true", "false"]), "false", "HTTP/2 without TLS, for clients that begin with it"),
    one(HTTP, "proxy_protocol", "PROXY_PROTOCOL", "proxy-protocol", OneOf(&["true", "false"]), "false", "expect a PROXY header (v1 or v2), from forwarded_allow_ips only"),
    many(one(HTTP, "cors_origins", "CORS_ORIGINS", "", Text, "*", "origins that browsers may call from, never with credentials")),

    one(LIMITS, "rate_limit_enabled", "RATE_LIMIT_ENABLED", "", OneOf(&["true", "false"]), "true", "limit requests"),
    one(LIMITS, "rate_limit_default", "RATE_LIMIT_DEFAULT", "", Text, "200 per day;50 per hour;10 per minute", "quotas of each client"),
    one(LIMITS, "rate_limit_chat", "RATE_LIMIT_CHAT", "", Text, "10 per minute", "quotas of /api/chat, besides"),
    one(LIMITS, "rate_limit_initialize", "RATE_LIMIT_INITIALIZE", "", Text, "5 per minute", "quotas of /api/initialize, besides"),
    one(LIMITS, "rate_limit_tokens", "RATE_LIMIT_TOKENS", "", Text, "", "budgets of each client's tokens, prompt and reply: \"20000 per day\""),
    one(LIMITS, "rate_limit_auth", "RATE_LIMIT_AUTH", "", Text, "10 per minute", "quotas of an address's attempts with a missing or wrong API key"),
    one(LIMITS, "rate_limit_endpoint_mode", "RATE_LIMIT_ENDPOINT_MODE", "", OneOf(&["add", "replace"]), "add", "whether an endpoint's quotas hold besides the client's or in their place"),
    one(LIMITS, "rate_limit_fallback", "RATE_LIMIT_FALLBACK", "", Text, "local", "who decides while Redis is away: local, divide:MACHINES, open, closed"),
    one(LIMITS, "rate_limit_dry_run", "RATE_LIMIT_DRY_RUN", "", OneOf(&["true", "false"]), "false", "count and tell, refuse nobody"),
    one(LIMITS, "rate_limit_allow", "RATE_LIMIT_ALLOW", "", Text, "", "addresses or CIDRs that no limit applies to"),
    one(LIMITS, "rate_limit_headers", "RATE_LIMIT_HEADERS", "", OneOf(&["true", "false"]), "true", "tell clients where they stand"),
    one(LIMITS, "rate_limit_ipv6_prefix", "RATE_LIMIT_IPV6_PREFIX", "", Count(48, 128), "64", "bits of an IPv6 address that are one client"),
    one(LIMITS, "rate_limit_table", "RATE_LIMIT_TABLE", "", Bytes(64 << 10, 4 << 30), "4MiB", "shared memory for counts; 4 MiB are about 50,000 clients a day"),
    one(LIMITS, "rate_limit_key", "RATE_LIMIT_KEY", "", Secret, "", "secret under which all machines hash clients in Redis"),
    one(LIMITS, "redis_url", "REDIS_URL", "", Url, "", "Redis that machines share: redis://, rediss://, unix:, redis+sentinel://, redis+cluster://"),
    one(LIMITS, "redis_ca_file", "REDIS_CA_FILE", "", Path, "", "certificate authorities of rediss://, PEM; default: the system's"),

    one(LOGS, "log_dir", "LOG_DIR", "log-dir", Path, "/tmp/logs", "directory of app.log, made 0700"),
    one(LOGS, "access_logfile", "ACCESS_LOGFILE", "access-logfile", Text, "-", "a path, - for stdout, or off"),
    one(LOGS, "error_logfile", "ERROR_LOGFILE", "error-logfile", Text, "-", "a path, - for stderr, or off"),
    one(LOGS, "access_logformat", "ACCESS_LOGFORMAT", "access-logformat", Text, "", "gunicorn's atoms, in text format"),
    one(LOGS, "log_level", "LOG_LEVEL", "log-level", OneOf(&["debug", "info", "warning", "error", "critical"]), "info", "least level that is logged"),
    one(LOGS, "log_format", "LOG_FORMAT", "log-format", OneOf(&["json", "text"]), "", "json, or text for people (a terminal gets text)"),
    one(LOGS, "log_client", "LOG_CLIENT", "log-client", OneOf(&["hashed", "full", "off"]), "hashed", "how the access log names a client"),
    many(one(LOGS, "log_redact", "LOG_REDACT", "", Text, "", "more patterns (regular expressions) that no log may show")),

    one(CHAT, "model", "MODEL", "model", Path, "", "the GGUF model; default: the one that bin/model installed"),
    many(one(CHAT, "chat_upstream", "CHAT_UPSTREAM", "chat-upstream", Text, "", "base URL of an OpenAI-compatible server, several in order of preference; then no engine is started")),
    one(CHAT, "chat_upstream_api_key", "CHAT_UPSTREAM_API_KEY", "", Secret, "", "bearer for the upstream"),
    one(CHAT, "hf_token", "HF_TOKEN", "", Secret, "", "bearer for the upstream `huggingface`"),
    one(CHAT, "chat_model", "CHAT_MODEL", "chat-model", Text, "", "model to ask the upstream for; default: the engine's"),
    one(CHAT, "system_prompt", "SYSTEM_PROMPT", "", Text, "", "instructions that stand before every conversation"),
    one(CHAT, "max_tokens", "MAX_TOKENS", "max-tokens", Count(1, 1_000_000), "256", "most tokens of a reply"),
    one(CHAT, "temperature", "TEMPERATURE", "temperature", Decimal(0.0, 2.0), "0.7", "0 always picks the likeliest token"),
    one(CHAT, "engine_command", "ENGINE_COMMAND", "engine-command", Text, "", "another engine to keep running, with its URL as the first CHAT_UPSTREAM; a program and its words, no shell"),
    one(CHAT, "engine_slots", "ENGINE_SLOTS", "engine-slots", Count(1, 64), "4", "conversations that the engine generates at once"),
    one(CHAT, "engine_context", "ENGINE_CONTEXT", "engine-context", Count(128, 1 << 20), "2048", "tokens of context of each slot"),
    one(CHAT, "engine_queue", "ENGINE_QUEUE", "engine-queue", Count(0, 10_000), "32", "chats that wait for a slot before new ones get 503"),
    one(CHAT, "upstream_connect_timeout", "UPSTREAM_CONNECT_TIMEOUT", "upstream-connect-timeout", Seconds(0.05, DAY_S), "5", "seconds to connect to the upstream"),
    one(CHAT, "upstream_first_token_timeout", "UPSTREAM_FIRST_TOKEN_TIMEOUT", "upstream-first-token-timeout", Seconds(0.05, DAY_S), "60", "seconds until the first token"),
    one(CHAT, "upstream_idle_timeout", "UPSTREAM_IDLE_TIMEOUT", "upstream-idle-timeout", Seconds(0.05, DAY_S), "30", "seconds between two tokens"),
    one(CHAT, "upstream_context", "UPSTREAM_CONTEXT", "upstream-context", Count(256, 100_000_000), "32768", "tokens of context of the upstream's model; older turns are left out by an estimate of 3 bytes a token"),
    one(CHAT, "database_url", "DATABASE_URL", "", Url, "", "sqlite:/path or postgres://user:password@host/database?sslmode=…; default: chatcorn.db below $STATE_DIRECTORY or ./data"),
    one(CHAT, "session_ttl_days", "SESSION_TTL_DAYS", "session-ttl-days", Count(1, 36_500), "30", "days that an idle session is kept"),

    one(PROCESS, "omp_num_threads", "OMP_NUM_THREADS", "", ThreadCount, "4", "compute threads, 1 to 8; anything else becomes 4"),
    one(PROCESS, "mkl_num_threads", "MKL_NUM_THREADS", "", ThreadCount, "4", "the same for libraries that ask for this one"),
    one(PROCESS, "user", "CHATCORN_USER", "user", Text, "", "user that every child runs as (root binds first)"),
    one(PROCESS, "group", "CHATCORN_GROUP", "group", Text, "", "group that every child runs as"),
    one(PROCESS, "umask", "CHATCORN_UMASK", "umask", Text, "", "octal mode mask of a Unix socket; default 177"),
    one(PROCESS, "pid", "PIDFILE", "pid", Path, "", "file for the master's process id"),
    one(PROCESS, "control_socket", "CONTROL_SOCKET", "control-socket", Path, "", "socket for chatcorn status, reload, stop; default: below $RUNTIME_DIRECTORY, $STATE_DIRECTORY or a directory of this user"),
    one(PROCESS, "chdir", "CHATCORN_CHDIR", "chdir", Path, "", "directory to work in"),
];

/// Settings that say where settings are; they cannot stand in a file themselves.
pub const CONFIG_FILE: &str = "chatcorn.toml";
/// Read from the working directory when it exists and `--env-file` names no other.
pub const ENV_FILE: &str = ".env";

/// The setting with this TOML key (dashes and underscores are the same).
pub fn by_key(key: &str) -> Option<&'static Setting> {
    let key = key.replace('-', "_");
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The setting with this variable.
pub fn by_env(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.env == name)
}

/// True for a variable whose value no other process may read in `/proc/PID/environ`.
pub fn is_secret_env(name: &str) -> bool {
    by_env(name).is_some_and(|setting| setting.kind.is_secret())
}

/// The known name that is closest to a mistyped one, when it is close.
pub fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|name| (distance(&typed.to_lowercase(), &name.to_lowercase()), name));
    scored.min().filter(|(edits, name)| *edits <= 2.max(name.len() / 4)).map(|(_, name)| name)
}

/// Levenshtein's distance: single-character edits from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, right) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_secrets_have_no_flag() {
        let keys: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.key).collect();
        let envs: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.env).collect();
        assert_eq!((keys.len(), envs.len()), (SETTINGS.len(), SETTINGS.len()));
        assert!(SETTINGS.iter().all(|setting| !setting.kind.is_secret() || setting.flag.is_empty()));
    }

    #[test]
    fn a_typing_error_finds_what_was_meant() {
        let keys = || SETTINGS.iter().map(|setting| setting.key);
        assert_eq!(nearest("wokers", keys()), Some("workers"));
        assert_eq!(nearest("hang_timout", keys()), Some("hang_timeout"));
        assert_eq!(nearest("nothing_like_it_at_all", keys()), None);
    }
}
