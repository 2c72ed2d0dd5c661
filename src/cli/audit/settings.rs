//! What the configuration says, before anything runs.

use super::{Audit, Finding, text};
use crate::chat::upstream::connector::Place;
use crate::config::raw::Raw;
use crate::limit::Trusted;
use crate::listener::Address;
use crate::log::redact::Redactor;

/// Threads that a computing library may have (`OPERATIONS.md`).
const THREADS: std::ops::RangeInclusive<u32> = 1..=8;

/// All checks that need no server.
pub fn look(audit: &Audit<'_>) -> Vec<Finding> {
    let raw = audit.raw;
    vec![
        configuration(audit.errors),
        token(raw),
        threads(raw, "OMP_NUM_THREADS", "omp_num_threads"),
        threads(raw, "MKL_NUM_THREADS", "mkl_num_threads"),
        limiting(raw),
        user(raw),
        transport(audit),
        redaction(raw),
        versions(audit),
    ]
}

fn configuration(errors: &[String]) -> Finding {
    match errors {
        [] => Finding::ok("configuration", "can be read"),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
            Finding::failure("configuration", format!("{first}{more}"), "`chatcorn check` names every problem")
        }
    }
}

fn token(raw: &Raw) -> Finding {
    let needed = text(raw, "chat_upstream").split(',').any(|upstream| upstream == "huggingface");
    let given = !text(raw, "hf_token").is_empty();
    match (needed, given) {
        (true, true) => Finding::ok("HF_TOKEN", "is set, and the upstream needs it"),
        (true, false) => {
            let mend = "set HF_TOKEN, or HF_TOKEN_FILE to a file with mode 0400 that holds it";
            Finding::failure("HF_TOKEN", "is not set, and CHAT_UPSTREAM=huggingface needs it", mend)
        }
        (false, true) => {
            Finding::warning("HF_TOKEN", "is set, and no upstream needs it", "take it out of this environment")
        }
        (false, false) => Finding::ok("HF_TOKEN", "is not needed: no upstream is huggingface"),
    }
}

fn threads(raw: &Raw, item: &'static str, key: &str) -> Finding {
    let written = text(raw, key);
    match written.parse().is_ok_and(|count: u32| THREADS.contains(&count)) {
        true => Finding::ok(item, format!("is {written}")),
        false => {
            let says = format!("is {written:?}, which is not an integer from 1 to 8; serve takes 4");
            Finding::failure(item, says, format!("set {item} to the number of cores, at most 8"))
        }
    }
}

fn limiting(raw: &Raw) -> Finding {
    let item = "rate limits";
    if text(raw, "rate_limit_enabled") != "true" {
        return Finding::failure(item, "are off", "set RATE_LIMIT_ENABLED=true");
    }
    if text(raw, "rate_limit_dry_run") == "true" {
        return Finding::failure(item, "only count and refuse nobody", "set RATE_LIMIT_DRY_RUN=false");
    }
    if text(raw, "rate_limit_fallback") == "open" {
        let mend = "set RATE_LIMIT_FALLBACK to local, divide:MACHINES or closed";
        return Finding::warning(item, "let everybody through while Redis is away", mend);
    }
    Finding::ok(item, format!("are on: {}; chat {}", text(raw, "rate_limit_default"), text(raw, "rate_limit_chat")))
}

fn user(raw: &Raw) -> Finding {
    let user = text(raw, "user");
    match (nix::unistd::geteuid().is_root(), user.as_str()) {
        (_, "root" | "0") => Finding::failure("user", "is root", "set --user to a user that owns nothing else"),
        (true, "") => {
            let mend = "start as another user, or as root with --user chatcorn";
            Finding::failure("user", "would be root: nothing else is set", mend)
        }
        (true, user) => Finding::ok("user", format!("every child becomes {user}")),
        (false, _) => Finding::ok("user", format!("is {}, not root", nix::unistd::geteuid())),
    }
}

/// TLS of our own, or a proxy that is trusted and nobody else.
fn transport(audit: &Audit<'_>) -> Finding {
    let (raw, item) = (audit.raw, "TLS");
    let proxies = text(raw, "forwarded_allow_ips");
    let everyone = |word: &str| word == "*" || word.ends_with("/0");
    if proxies.split(',').map(str::trim).any(everyone) {
        let says = "every client is trusted as a proxy and may name any address as its own";
        return Finding::failure(item, says, "set FORWARDED_ALLOW_IPS to the proxy's address alone");
    }
    if proxies.parse::<Trusted>().is_err() {
        return Finding::failure(item, "FORWARDED_ALLOW_IPS cannot be read", "write addresses or CIDRs");
    }
    if !text(raw, "certfile").is_empty() {
        return Finding::ok(item, "is spoken by the server itself");
    }
    if audit.server.is_some_and(|server| matches!(server.place, Place::Unix(_))) {
        return Finding::ok(item, "the server listens on a Unix socket: what is in front of it speaks TLS");
    }
    let binds = text(raw, "bind");
    let public = |bind: &str| Address::parse(bind.trim()).map_or(true, |address| address.is_public());
    match binds.split(',').any(public) {
        true => Finding::warning(
            item,
            format!("{binds} is open to other machines and speaks plain HTTP"),
            "put a proxy with TLS in front, name it in FORWARDED_ALLOW_IPS, and bind 127.0.0.1 or a Unix socket",
        ),
        false => Finding::ok(item, format!("only this machine reaches {binds}: a proxy on it speaks TLS")),
    }
}

/// The redactor with the operator's own patterns, on secrets made for it.
fn redaction(raw: &Raw) -> Finding {
    let patterns = crate::config::settings::by_key("log_redact").map(|setting| raw.get(setting).texts);
    let redactor = match Redactor::new(&patterns.unwrap_or_default()) {
        Ok(redactor) => redactor,
        Err(reason) => {
            let says = format!("LOG_REDACT cannot be used: {reason}");
            return Finding::failure("redaction", says, "write regular expressions as the crate regex reads them");
        }
    };
    let shown = super::asked::plants("0123456789abcdefABCDEF").into_iter().filter(|(line, secret)| {
        let line = redactor.line(line.as_bytes()).into_owned();
        String::from_utf8_lossy(&line).contains(secret)
    });
    match shown.count() {
        0 => Finding::ok("redaction", "planted secrets are taken out of log lines"),
        count => Finding::failure("redaction", format!("{count} planted secrets stay in log lines"), "report this"),
    }
}

fn versions(audit: &Audit<'_>) -> Finding {
    let ours = format!("chatcorn {}, SQLite {}", env!("CARGO_PKG_VERSION"), rusqlite::version());
    if !text(audit.raw, "chat_upstream").is_empty() {
        return Finding::ok("versions", format!("{ours}; the model is an upstream's"));
    }
    let Some(model) = audit.model else {
        let mend = "run bin/model, or set MODEL to a GGUF file, or CHAT_UPSTREAM";
        return Finding::failure("versions", format!("{ours}; there is no model"), mend);
    };
    let shown = model.display();
    match std::fs::read(model).map(|bytes| (bytes.len(), bytes.starts_with(b"GGUF"))) {
        Ok((bytes, true)) => Finding::ok("versions", format!("{ours}; model {shown}, {bytes} bytes")),
        Ok(_) => Finding::failure("versions", format!("{ours}; {shown} is no GGUF file"), "set MODEL to one"),
        Err(error) => Finding::failure("versions", format!("{ours}; {shown}: {error}"), "make MODEL readable"),
    }
}
