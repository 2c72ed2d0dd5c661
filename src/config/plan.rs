//! From what is written to what is meant: one [`Plan`], and every problem on the way.

use super::listen::addresses;
use super::model::{self, Answering};
use super::problem::Problems;
use super::raw::Raw;
use super::values::Values;
use crate::chat::store;
use crate::limit::{self, Trusted};
use crate::listener::{Address, Wanted, inherited};
use crate::sys::{fd, process};
use crate::{engine, http, log, master, worker};
use std::ffi::OsString;
use std::hash::{Hash, Hasher};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that `serve` needs.
pub struct Plan {
    /// The master's.
    pub master: master::Plan,
    /// Written with the master's process id.
    pub pidfile: Option<PathBuf>,
    /// Working directory.
    pub chdir: Option<PathBuf>,
    /// Variables that this process and its children shall see mended.
    pub mended: Vec<(&'static str, String)>,
}

/// Makes the plan; `socket` is the abstract name of the engine's socket.
pub fn resolve(
    raw: &Raw,
    engine_socket: &[u8],
    environment: &[(OsString, OsString)],
    problems: &mut Problems,
) -> Option<Plan> {
    let mut values = Values { raw, problems };
    let shape = shape(&mut values);
    let omp = values.threads("omp_num_threads");
    let mkl = values.threads("mkl_num_threads");
    let answering = model::answering(&mut values, omp, engine_socket, environment);
    let log = logs(&mut values);
    let mut worker = worker_plan(&mut values, &shape, &answering, &log);
    let identity = identity(&mut values);
    let addresses = addresses(&mut values);
    worker.http.auth = keys(&mut values, &addresses, worker.limits.as_mut());
    let backlog = values.count("backlog") as i32;
    let tls = worker.http.front.tls.is_some();
    let umask = umask(&mut values);
    let mended = vec![("OMP_NUM_THREADS", omp.to_string()), ("MKL_NUM_THREADS", mkl.to_string())];
    log_places(&log, identity, &mut values);
    descriptors(&worker, &mut values);
    let control = control_socket(&values);
    let (pidfile, chdir) = (values.path("pid"), values.path("chdir"));
    if !problems.errors().is_empty() {
        return None;
    }
    let warnings =
        problems.warnings().iter().map(|warning| master::Notice { text: warning.text.clone(), mended: warning.mended });
    let shape = master::Shape {
        engine: answering.engine.as_ref().map(engine::Plan::fingerprint),
        engine_beside: matches!(answering.engine, Some(engine::Plan::Own(_))),
        ..shape
    };
    let master = master::Plan {
        shape,
        listen: Wanted { addresses, backlog, umask, tls },
        worker,
        log,
        engine: answering.engine,
        control,
        identity,
        environment: child_environment(environment, &mended),
        warnings: warnings.collect(),
    };
    Some(Plan { master, pidfile, chdir, mended })
}

fn shape(values: &mut Values<'_>) -> master::Shape {
    master::Shape {
        workers: values.count("workers") as usize,
        engine: None,
        engine_beside: false,
        boot_timeout: values.seconds("boot_timeout"),
        hang_timeout: values.seconds("hang_timeout"),
        graceful_timeout: values.seconds("graceful_timeout"),
        request_timeout: values.seconds("timeout"),
        drain_delay: values.seconds("drain_delay"),
        rss_bytes_max: values.bytes("max_rss"),
    }
}

fn worker_plan(values: &mut Values<'_>, shape: &master::Shape, answering: &Answering, log: &log::Plan) -> worker::Plan {
    let local_model = answering.engine.is_some();
    worker::Plan {
        threads: values.count("threads") as usize,
        connections_max: values.count("worker_connections"),
        requests: (values.count("max_requests"), values.count("max_requests_jitter")),
        http: http_plan(values, shape, local_model),
        chat: model::chat_plan(values, answering),
        store: store(values),
        limits: limits(values),
        log: log.clone(),
    }
}

fn http_plan(values: &mut Values<'_>, shape: &master::Shape, local_model: bool) -> http::Plan {
    http::Plan {
        cors_origins: origins(values),
        body_bytes_max: values.bytes("limit_body"),
        head: http::head::Limits {
            request_line_bytes_max: values.bytes("limit_request_line") as usize,
            field_bytes_max: values.bytes("limit_request_field_size") as usize,
            fields_max: values.count("limit_request_fields") as usize,
            head_bytes_max: values.bytes("limit_head") as usize,
        },
        times: http::strict::Times {
            head_ms_max: values.seconds("header_timeout").as_millis() as u64,
            body_ms_max: values.seconds("body_timeout").as_millis() as u64,
            whole_ms_max: shape.request_timeout.as_millis() as u64,
            idle_ms_max: values.seconds("keep_alive").as_millis() as u64,
            ..http::strict::Times::default()
        },
        trusted: trusted(values),
        request_time: shape.request_timeout,
        workers: shape.workers,
        local_model,
        front: front(values),
        auth: None,
    }
}

fn front(values: &mut Values<'_>) -> http::front::Plan {
    let tls = match (values.path("certfile"), values.path("keyfile")) {
        (Some(certfile), Some(keyfile)) => match http::tls::load(&certfile, &keyfile) {
            Ok(config) => Some(config),
            Err(reason) => {
                let source = values.source("certfile");
                values.problems.error(&source, reason);
                None
            }
        },
        (None, None) => None,
        _ => {
            values.problems.failure("TLS needs both certfile and keyfile");
            None
        }
    };
    let on = |word: Option<String>| word.as_deref() == Some("true");
    let proxy_protocol = on(values.word("proxy_protocol"));
    http::front::Plan { tls, proxy_protocol, http2_clear: on(values.word("http2_clear")) }
}

/// The API keys, and what they change about the limits.
fn keys(values: &mut Values<'_>, addresses: &[Address], limits: Option<&mut limit::Plan>) -> Option<http::auth::Plan> {
    let Some(path) = values.path("api_keys_file") else {
        if let Some(public) = addresses.iter().find(|address| address.is_public()) {
            let text =
                format!("{public} is open to everyone: set API_KEYS_FILE, and make keys with `chatcorn key new`");
            values.problems.advice(text);
        }
        return None;
    };
    let keys = match http::keys::Keys::read(&path) {
        Ok(keys) => keys,
        Err(reason) => {
            let source = values.source("api_keys_file");
            values.problems.error(&source, format!("{reason}; `chatcorn key new` makes the file and its first key"));
            return None;
        }
    };
    if let Some(limits) = limits {
        limits.auth =
            values.parsed("rate_limit_auth", |text| limit::quota::parse(text).map_err(|error| error.to_string()));
        limits.keys = keys.quotas();
    }
    Some(http::auth::Plan { path, keys: std::sync::Arc::new(keys) })
}

/// A name that no browser sends would let nobody in, without a word.
fn origins(values: &mut Values<'_>) -> Vec<String> {
    let origins = values.texts("cors_origins");
    for origin in origins.iter().filter(|origin| *origin != "*" && !http::headers::is_origin(origin)) {
        let source = values.source("cors_origins");
        let rule = "write scheme://host or scheme://host:port in lower case, nothing behind it, or * for all";
        values.problems.error(&source, format!("{origin:?} is no origin: {rule}"));
    }
    origins
}

fn trusted(values: &mut Values<'_>) -> Trusted {
    let parsed = values.text("forwarded_allow_ips").unwrap_or_default().parse();
    parsed.unwrap_or_else(|error| {
        let source = values.source("forwarded_allow_ips");
        values.problems.error(&source, error);
        Trusted::default()
    })
}

fn limits(values: &mut Values<'_>) -> Option<limit::Plan> {
    let enabled = values.word("rate_limit_enabled").as_deref() != Some("false");
    if !enabled {
        values.problems.advice("rate limiting is off: RATE_LIMIT_ENABLED=false");
    }
    let mut quotas = |key| values.parsed(key, |text| limit::quota::parse(text).map_err(|error| error.to_string()));
    let (default, chat, initialize) =
        (quotas("rate_limit_default"), quotas("rate_limit_chat"), quotas("rate_limit_initialize"));
    let plan = limit::Plan {
        default,
        chat,
        initialize,
        auth: Vec::new(),
        tokens: values
            .parsed("rate_limit_tokens", |text| limit::quota::parse_tokens(text).map_err(|error| error.to_string())),
        keys: Vec::new(),
        mode: match values.word("rate_limit_endpoint_mode").as_deref() {
            Some("replace") => limit::Mode::Replace,
            _ => limit::Mode::Add,
        },
        fallback: values.parsed("rate_limit_fallback", str::parse),
        dry_run: values.word("rate_limit_dry_run").as_deref() == Some("true"),
        allow: values.parsed("rate_limit_allow", ranges),
        headers: values.word("rate_limit_headers").as_deref() != Some("false"),
        v6_prefix: values.count("rate_limit_ipv6_prefix") as u8,
        table_bytes: values.bytes("rate_limit_table") as usize,
        redis: redis(values),
        redis_key: values.text("rate_limit_key").map(String::into_bytes),
    };
    enabled.then_some(plan)
}

fn redis(values: &mut Values<'_>) -> Option<limit::Target> {
    let authorities = values.path("redis_ca_file");
    values.parsed("redis_url", |text| match text {
        "" => Ok(None),
        url => url.parse::<limit::Target>()?.trusting(authorities.as_deref()).map(Some),
    })
}

fn ranges(text: &str) -> Result<Vec<limit::client::Cidr>, String> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(|entry| entry.parse().map_err(|error: limit::client::CidrError| error.to_string())).collect()
}

/// The abstract name of a bound Unix socket.
pub fn abstract_name(socket: &socket2::Socket) -> Option<Vec<u8>> {
    socket.local_addr().ok()?.as_abstract_namespace().map(<[u8]>::to_vec)
}

fn store(values: &mut Values<'_>) -> store::Plan {
    let state = values.raw.variable("STATE_DIRECTORY").map(PathBuf::from);
    let default = || state.unwrap_or_else(|| PathBuf::from("data")).join("chatcorn.db");
    let place = match values.text("database_url").filter(|url| !url.is_empty()) {
        None => Ok(store::Place::File(default())),
        Some(url) => database(&url),
    };
    let place = place.unwrap_or_else(|reason| {
        let source = values.source("database_url");
        values.problems.error(&source, reason);
        store::Place::File(PathBuf::new())
    });
    if let store::Place::Server(target) = &place
        && let Some(advice) = target.advice
    {
        values.problems.advice(format!("DATABASE_URL: {advice}"));
    }
    let days = values.count("session_ttl_days");
    store::Plan { place, ttl: Duration::from_secs(days * 86_400) }
}

fn database(url: &str) -> Result<store::Place, String> {
    if store::postgres::is_url(url) {
        let target = url.parse().map_err(|reason: String| format!("DATABASE_URL: {reason}"))?;
        return Ok(store::Place::Server(Box::new(target)));
    }
    match url.strip_prefix("sqlite:") {
        Some(path) if !path.trim_start_matches("//").is_empty() => {
            Ok(store::Place::File(PathBuf::from(path.strip_prefix("//").unwrap_or(path))))
        }
        _ => Err("DATABASE_URL: write sqlite:/path/to/file or postgres://user@host/database".to_owned()),
    }
}

pub(super) fn logs(values: &mut Values<'_>) -> log::Plan {
    let format = match values.word("log_format").as_deref() {
        Some("text") => log::Format::Text,
        Some(_) => log::Format::Json,
        None if std::io::stderr().is_terminal() => log::Format::Text,
        None => log::Format::Json,
    };
    log::Plan {
        dir: values.path("log_dir").unwrap_or_else(|| PathBuf::from("/tmp/logs")),
        dir_set: values.is_set("log_dir"),
        access: destination(values.text("access_logfile")),
        error: destination(values.text("error_logfile")),
        level: level(values.word("log_level").as_deref()),
        format,
        access_format: values.text("access_logformat").filter(|atoms| !atoms.is_empty()),
        client: match values.word("log_client").as_deref() {
            Some("full") => log::Client::Full,
            Some("off") => log::Client::Off,
            _ => log::Client::Hashed,
        },
        patterns: values.texts("log_redact"),
    }
}

fn destination(text: Option<String>) -> log::Destination {
    match text.as_deref() {
        Some("-") => log::Destination::Stream,
        None | Some("" | "off" | "none") => log::Destination::Off,
        Some(path) => log::Destination::File(PathBuf::from(path)),
    }
}

fn level(word: Option<&str>) -> tracing::Level {
    match word {
        Some("debug") => tracing::Level::DEBUG,
        Some("warning") => tracing::Level::WARN,
        Some("error" | "critical") => tracing::Level::ERROR,
        _ => tracing::Level::INFO,
    }
}

/// Who the children run as, where that is set.
pub fn identity(values: &mut Values<'_>) -> Option<process::Identity> {
    let user = values.text("user").filter(|user| !user.is_empty())?;
    let group = values.text("group");
    match process::identity(&user, group.as_deref()) {
        Ok(identity) => Some(identity),
        Err(reason) => {
            let source = values.source("user");
            values.problems.error(&source, reason);
            None
        }
    }
}

/// The operators' socket, the same for the server and for the commands that are run where it runs.
pub fn control_socket(values: &Values<'_>) -> PathBuf {
    let base = values.path("chdir").or_else(|| std::env::current_dir().ok()).unwrap_or_default();
    let base = base.canonicalize().unwrap_or(base);
    if let Some(path) = values.path("control_socket") {
        return base.join(path);
    }
    // systemd separates several directories by colons.
    let variable = |name| values.raw.variable(name).and_then(|text| text.split(':').next()).map(PathBuf::from);
    match variable("RUNTIME_DIRECTORY").or_else(|| variable("STATE_DIRECTORY")) {
        Some(directory) => directory.join("control.sock"),
        None => {
            let mut hasher = siphasher::sip::SipHasher13::new();
            base.hash(&mut hasher);
            let user = PathBuf::from(format!("/tmp/chatcorn-{}", process::uid()));
            user.join(format!("{:016x}.sock", hasher.finish()))
        }
    }
}

fn umask(values: &mut Values<'_>) -> Option<u32> {
    let text = values.text("umask").filter(|text| !text.is_empty())?;
    let mode = u32::from_str_radix(text.trim_start_matches("0o"), 8).ok().filter(|mode| *mode <= 0o777);
    if mode.is_none() {
        let source = values.source("umask");
        values.problems.error(&source, format!("umask = {text:?}: write an octal number from 0 to 777"));
    }
    mode
}

/// Looks whether the log files can be written, by whom they will be.
fn log_places(log: &log::Plan, identity: Option<process::Identity>, values: &mut Values<'_>) {
    let problems = &mut *values.problems;
    if let Err(reason) = log.validate() {
        return problems.failure(reason);
    }
    match log::rotate::prepare_for(log, identity) {
        Ok(prepared) => prepared.warning.iter().for_each(|warning| problems.advice(warning)),
        Err(reason) => problems.failure(reason),
    }
}

/// A limit that the connections do not fit into is raised by whoever starts this program, and by nobody else.
fn descriptors(worker: &worker::Plan, values: &mut Values<'_>) {
    let needed = worker.descriptors();
    if let Some(hard) = fd::hard_limit().ok().filter(|hard| *hard < needed) {
        let text = format!(
            "worker_connections = {} needs {needed} descriptors, and at most {hard} may be open: raise LimitNOFILE= or \
             ulimit -n",
            worker.connections_max
        );
        values.problems.advice(text);
    }
}

/// What an exec'd child sees: no secret, and the mended values.
fn child_environment(environment: &[(OsString, OsString)], mended: &[(&str, String)]) -> Vec<(OsString, OsString)> {
    let kept = environment.iter().filter(|(name, _)| {
        let name = name.to_string_lossy();
        let private = super::settings::is_secret_env(&name) || inherited::FOR_ONE_PROCESS.contains(&&*name);
        !private && !mended.iter().any(|(other, _)| *other == name)
    });
    let mended = mended.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    kept.cloned().chain(mended).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executed_child_gets_no_secret() {
        let pair = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
        let environment = [pair("HF_TOKEN", "hf_x"), pair("PATH", "/bin"), pair("OMP_NUM_THREADS", "99")];
        let environment = [&environment[..], &[pair("NOTIFY_SOCKET", "@x"), pair("LISTEN_FDS", "1")]].concat();
        let child = child_environment(&environment, &[("OMP_NUM_THREADS", "4".into())]);
        assert_eq!(child, [pair("PATH", "/bin"), pair("OMP_NUM_THREADS", "4")]);
    }
}
