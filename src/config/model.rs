//! Who answers: our engine, another one that is kept here, or upstreams.

use super::raw::Raw;
use super::values::Values;
use crate::chat::upstream::connector::Place;
use crate::chat::upstream::{Limits, TARGETS_MAX, Target};
use crate::engine::command::{self, Command};
use crate::{chat, engine};
use ::http as http_types;
use http_types::HeaderValue;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// `huggingface` stands for this router's address; its token is `HF_TOKEN`.
const HUGGING_FACE: &str = "https://router.huggingface.co/v1";
/// Estimated tokens for one of the engine's: it counts itself, and gets all that could fit.
const ENGINE_ESTIMATE: u64 = 4;
/// Connections that our engine takes, for all workers together.
const ENGINE_CONNECTIONS: u64 = engine::CONNECTIONS_MAX as u64;

/// Who answers.
pub struct Answering {
    /// In order of preference; our engine's socket when it is the one.
    targets: Vec<Target>,
    /// What the master keeps alive.
    pub engine: Option<engine::Plan>,
}

/// Reads who answers; `socket` is the abstract name of our engine's, `environment` what a command sees.
pub fn answering(
    values: &mut Values<'_>,
    threads: u32,
    socket: &[u8],
    environment: &[(OsString, OsString)],
) -> Answering {
    let targets = upstreams(values);
    let command = values.text("engine_command").filter(|text| !text.trim().is_empty());
    match (targets.first(), command) {
        (None, None) => {
            let own = Target {
                place: Place::Unix(abstract_path(socket)),
                authority: "localhost".into(),
                base_path: "/v1".into(),
                bearer: None,
                own: true,
            };
            Answering { targets: vec![own], engine: engine(values, threads).map(engine::Plan::Own) }
        }
        (Some(_), None) => Answering { targets, engine: None },
        (first, Some(text)) => {
            let kept = first.ok_or("ENGINE_COMMAND needs CHAT_UPSTREAM: the URL where its engine listens".to_owned());
            let kept =
                kept.and_then(|target| Ok(Command { words: words(&text, environment)?, target: target.clone() }));
            if let Err(reason) = &kept {
                let source = values.source("engine_command");
                values.problems.error(&source, reason);
            }
            Answering { targets, engine: kept.ok().map(Box::new).map(engine::Plan::Command) }
        }
    }
}

/// A command's words, the first as a path.
fn words(text: &str, environment: &[(OsString, OsString)]) -> Result<Vec<OsString>, String> {
    let words = command::words(text)?;
    let program = words.first().ok_or("ENGINE_COMMAND is empty")?;
    let paths = environment.iter().find(|(name, _)| name == "PATH").map(|(_, paths)| paths.as_os_str());
    let found = command::program(OsStr::new(program), paths).ok_or_else(|| {
        format!("ENGINE_COMMAND: there is no program {program:?} (it is no shell's line: write sh -c '...' for one)")
    })?;
    Ok([found.into_os_string()].into_iter().chain(words.into_iter().skip(1).map(OsString::from)).collect())
}

fn engine(values: &mut Values<'_>, threads: u32) -> Option<engine::Settings> {
    let settings = engine::Settings {
        model: values.path("model").or_else(|| installed_model(values.raw)).unwrap_or_default(),
        slots: values.count("engine_slots") as u32,
        context: values.count("engine_context") as u32,
        queue: values.count("engine_queue") as usize,
        threads,
        ..engine::Settings::default()
    };
    let mend = "run bin/model, set MODEL to a GGUF file, or set CHAT_UPSTREAM to an OpenAI-compatible server";
    if !cfg!(feature = "engine") {
        values
            .problems
            .failure("this build has no model engine: set CHAT_UPSTREAM, or build with the feature `engine`");
    } else if settings.model.as_os_str().is_empty() {
        values.problems.failure(format!("there is no model: {mend}"));
    } else if let Err(error) = std::fs::File::open(&settings.model) {
        let place = values.source("model");
        values.problems.error(&place, format!("model {} cannot be read: {error}; {mend}", settings.model.display()));
    }
    Some(settings)
}

/// The model that `bin/model` put into the cache, when it is there.
pub fn installed_model(raw: &Raw) -> Option<PathBuf> {
    let cache = match (raw.variable("CHATCORN_CACHE"), raw.variable("XDG_CACHE_HOME"), raw.variable("HOME")) {
        (Some(own), _, _) => PathBuf::from(own),
        (None, Some(cache), _) => Path::new(cache).join("chatcorn"),
        (None, None, Some(home)) => Path::new(home).join(".cache/chatcorn"),
        (None, None, None) => return None,
    };
    let path = cache.join("models").join("SmolLM2-135M-Instruct.Q4_1.gguf");
    path.exists().then_some(path)
}

fn upstreams(values: &mut Values<'_>) -> Vec<Target> {
    let source = values.source("chat_upstream");
    let mut targets = Vec::new();
    if values.texts("chat_upstream").len() > TARGETS_MAX {
        values.problems.error(&source, format!("at most {TARGETS_MAX} upstreams"));
    }
    for text in values.texts("chat_upstream") {
        let hugging_face = text == "huggingface";
        let key = if hugging_face { values.text("hf_token") } else { values.text("chat_upstream_api_key") };
        if hugging_face && key.is_none() {
            values.problems.error(&source, "huggingface needs HF_TOKEN: set it, or HF_TOKEN_FILE");
        }
        match target(if hugging_face { HUGGING_FACE } else { &text }, key.as_deref()) {
            Ok(target) => targets.push(target),
            Err(reason) => values.problems.error(&source, reason),
        }
    }
    targets
}

fn target(url: &str, key: Option<&str>) -> Result<Target, String> {
    let bearer = key.map(|key| HeaderValue::from_str(&format!("Bearer {key}"))).transpose();
    let mut bearer = bearer.map_err(|_| "the upstream's key holds a character that no header may".to_owned())?;
    bearer.iter_mut().for_each(|bearer| bearer.set_sensitive(true));
    if let Some(path) = url.strip_prefix("unix:") {
        let place = Place::Unix(PathBuf::from(path));
        return Ok(Target { place, authority: "localhost".into(), base_path: "/v1".into(), bearer, own: false });
    }
    let (tls, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        (None, None) => {
            return Err(format!("{:?}: write http(s)://host:port/v1 or unix:/path", without_userinfo(url)));
        }
    };
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
    let authority: http_types::uri::Authority =
        authority.parse().map_err(|_| format!("{:?}: the host is not understood", without_userinfo(url)))?;
    if authority.as_str().contains('@') {
        return Err("a key in the URL ends up in logs: set CHAT_UPSTREAM_API_KEY".to_owned());
    }
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let place = match tls {
        true => Place::Tls(host, authority.port_u16().unwrap_or(443)),
        false => Place::Tcp(host, authority.port_u16().unwrap_or(80)),
    };
    let base_path = format!("/{}", path.trim_matches('/'));
    let base_path = if base_path == "/" { "/v1".to_owned() } else { base_path };
    if http_types::uri::PathAndQuery::try_from(&base_path).is_err() || base_path.contains('?') {
        return Err(format!("{:?}: the path is not understood", without_userinfo(url)));
    }
    Ok(Target { place, authority: authority.to_string(), base_path, bearer, own: false })
}

fn without_userinfo(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => format!("{}[REDACTED]{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    }
}

/// A worker's chat.
pub fn chat_plan(values: &mut Values<'_>, answering: &Answering) -> chat::Plan {
    let tokens_max = values.count("max_tokens");
    let context_tokens_max = match &answering.engine {
        Some(engine::Plan::Own(engine)) => u64::from(engine.context) * ENGINE_ESTIMATE,
        _ => values.count("upstream_context").saturating_sub(tokens_max),
    };
    let own = answering.targets.iter().any(|target| target.own);
    let chats_max = match own {
        true => ENGINE_CONNECTIONS / values.count("workers").max(1),
        false => values.count("worker_connections"),
    };
    chat::Plan {
        chats_max: chats_max as u32,
        // While an engine is away another upstream may answer.
        engine: answering.engine.is_some() && answering.targets.len() == 1,
        targets: answering.targets.clone(),
        limits: Limits {
            connect: values.seconds("upstream_connect_timeout"),
            first_token: values.seconds("upstream_first_token_timeout"),
            idle: values.seconds("upstream_idle_timeout"),
        },
        model: values.text("chat_model"),
        system_prompt: values.text("system_prompt"),
        tokens_max: tokens_max as u32,
        temperature: values.decimal("temperature") as f32,
        context_tokens_max: context_tokens_max as usize,
    }
}

/// A path that begins with a NUL byte is an abstract name.
fn abstract_path(name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    PathBuf::from(OsString::from_vec([&[0], name].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_understood() {
        let vllm = target("http://10.0.0.5:8000/v1/", Some("k")).unwrap();
        assert_eq!((vllm.place, vllm.base_path.as_str()), (Place::Tcp("10.0.0.5".into(), 8000), "/v1"));
        assert!(vllm.bearer.is_some_and(|bearer| bearer.is_sensitive()));
        assert_eq!(target("http://h", None).unwrap().place, Place::Tcp("h".into(), 80));
        assert_eq!(target("https://h/v1", None).unwrap().place, Place::Tls("h".into(), 443));
        assert_eq!(target("unix:/run/e.sock", None).unwrap().place, Place::Unix("/run/e.sock".into()));
        for bad in ["h:80", "http://", "http://u:secret@h/", "ftp://u:secret@h/", "https://u:secret@h/v1"] {
            let error = target(bad, None).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
