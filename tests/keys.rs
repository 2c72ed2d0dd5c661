//! API keys: made, used, limited, revoked.

use crate::support::{Answer, Server, Upstream, Way, until};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

fn key(file: &Path, arguments: &[&str]) -> Output {
    key_in(file.parent().unwrap(), file, arguments)
}

fn key_in(place: &Path, file: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatcorn"));
    command.env_clear().env("API_KEYS_FILE", file).current_dir(place);
    command.arg("key").args(arguments).output().unwrap()
}

fn new(file: &Path, arguments: &[&str]) -> String {
    let output = key(file, &[&["new"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn id(key: &str) -> &str {
    key.split('_').nth(1).unwrap()
}

fn ask(server: &Server, header: &str) -> Answer {
    let mut connection = server.connect();
    connection.send(format!("GET /api/nothing HTTP/1.1\r\nHost: t\r\n{header}\r\n")).unwrap();
    connection.answer().unwrap()
}

fn bearer(server: &Server, key: &str) -> Answer {
    ask(server, &format!("Authorization: Bearer {key}\r\n"))
}

/// A server in whose directory `keys` is its file of keys, empty at first.
fn start(variables: &[(&str, &str)]) -> Server {
    let file = [("API_KEYS_FILE", "keys")];
    Server::start_with(&[&file, variables].concat(), &[("keys", "")])
}

#[test]
fn keys_open_the_api_and_are_seen_without_a_reload() {
    let server = start(&[("RATE_LIMIT_ENABLED", "false")]);
    let file = server.home.join("keys");
    let missing = ask(&server, "");
    assert_eq!((missing.status, missing.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(missing.json()["error"], "unauthorized");
    assert_eq!(missing.header("x-content-type-options"), Some("nosniff"));
    let good = new(&file, &["--name", "alice"]);
    until("the new key is known", || bearer(&server, &good).status == 404);
    until("all workers know it", || (0..16).all(|_| ask(&server, &format!("X-API-Key: {good}\r\n")).status == 404));
    for open in ["/", "/healthz", "/api/health"] {
        assert_eq!(server.connect().get(open).unwrap().status, 200, "{open}");
    }
    let forged = format!("{}{}", &good[..good.len() - 1], if good.ends_with('x') { 'y' } else { 'x' });
    assert_eq!(bearer(&server, &forged).status, 401);
    server.expect_that("the security event", |event| {
        event["target"] == "security" && event.to_string().contains("auth_failed")
    });
    let listed = String::from_utf8(key(&file, &["list"]).stdout).unwrap();
    assert!(listed.contains(id(&good)) && listed.contains("alice") && !listed.contains(&good), "{listed}");
    until("the last use is noted", || {
        let listed = String::from_utf8(key(&file, &["list"]).stdout).unwrap();
        !listed.lines().last().unwrap().contains(" never  alice")
    });
    assert!(key(&file, &["revoke", id(&good)]).status.success());
    // Each event loop looks at the file by itself: the last to do so may not be among those that answered.
    let ended = || Some(bearer(&server, &good)).filter(|answer| answer.status == 403);
    until("the revoked key is known", || (0..16).all(|_| ended().is_some_and(|it| it.json()["error"] == "forbidden")));
    assert!(!server.text().contains(&good[20..]), "the key stands in the log");
}

#[test]
fn a_key_file_that_breaks_keeps_the_old_keys() {
    let server = start(&[("RATE_LIMIT_ENABLED", "false")]);
    let file = server.home.join("keys");
    let good = new(&file, &[]);
    // So that every event loop knows it: each looks at the file by itself.
    assert!(server.order(&["reload"]).status.success());
    (0..4).for_each(|_| drop(server.expect("worker ended")));
    std::fs::write(&file, "{ broken").unwrap();
    server.expect("API keys not read again: the old ones go on");
    assert_eq!(bearer(&server, &good).status, 404);
    server.signal(nix::sys::signal::Signal::SIGHUP);
    let refused = server.expect("reload refused: everything stays as it was");
    assert!(refused["reason"].as_str().unwrap().contains("keys"), "{refused}");
    assert_eq!(bearer(&server, &good).status, 404);
}

#[test]
fn a_key_is_the_client_and_may_have_its_own_quotas() {
    let server = start(&[("RATE_LIMIT_DEFAULT", "3/minute"), ("RATE_LIMIT_AUTH", "4/minute")]);
    let file = server.home.join("keys");
    let (plain, generous) = (new(&file, &[]), new(&file, &["--quota", "5/minute"]));
    server.signal(nix::sys::signal::Signal::SIGHUP);
    // Until they have gone, an old worker with the old keys may take a connection.
    (0..4).for_each(|_| drop(server.expect("worker ended")));
    let statuses = |key: &str, count: usize| (0..count).map(|_| bearer(&server, key).status).collect::<Vec<_>>();
    assert_eq!(statuses(&plain, 4), [404, 404, 404, 429]);
    assert_eq!(statuses(&generous, 6), [404, 404, 404, 404, 404, 429]);
    assert!(bearer(&server, &generous).header("ratelimit-policy").unwrap().contains("q=5;w=60"));
    assert_eq!(statuses("nobody", 6), [401, 401, 401, 401, 429, 429]);
    assert_eq!(bearer(&server, &plain).status, 429, "a good key has its own count");
}

#[test]
fn an_expired_key_and_a_missing_file_are_told() {
    let server = start(&[]);
    let file = server.home.join("other");
    assert!(!key(&file, &["revoke", "0123456789ab"]).status.success());
    assert!(!key(&file, &["new", "--quota", "often"]).status.success());
    let made = new(&file, &["--expires-days", "1"]);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("expires") && !text.contains(&made));
    let refused = crate::support::run(&["check"], &[("API_KEYS_FILE", "/nowhere"), ("CHAT_UPSTREAM", "http://h")], &[]);
    assert_eq!(refused.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("key new"));
    let public = crate::support::run(&["check"], &[("BIND", "0.0.0.0:0"), ("CHAT_UPSTREAM", "http://h")], &[]);
    assert!(String::from_utf8_lossy(&public.stderr).contains("API_KEYS_FILE"), "{public:?}");
}

#[test]
fn a_key_ends_when_it_says_and_the_log_names_it_and_who_tried() {
    // A server for each: of many failures of one client a worker logs the first, then a number.
    let failed = |server: &Server, reason: &str| {
        let event = server.expect_that(reason, |event| {
            let text = event.to_string();
            text.contains("auth_failed") && text.contains(reason) && text.contains("127.0.0.1")
        });
        event.to_string()
    };
    let begin = || start(&[("RATE_LIMIT_ENABLED", "false"), ("LOG_CLIENT", "full")]);
    let server = begin();
    ask(&server, "");
    failed(&server, "missing");
    let server = begin();
    bearer(&server, "nobody");
    failed(&server, "wrong");
    let server = begin();
    let file = server.home.join("keys");
    let key = new(&file, &["--expires-days", "1"]);
    let mut text: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    text["keys"][0]["expires"] = 1.into();
    std::fs::write(&file, text.to_string()).unwrap();
    assert!(server.order(&["reload"]).status.success());
    until("its end is known", || bearer(&server, &key).status == 403);
    assert!(failed(&server, "expired or revoked").contains(id(&key)));
    assert!(!server.text().contains(&key[20..]), "the key stands in the log");
}

#[test]
fn keys_open_v1_too_and_its_errors_are_openais() {
    let upstream = Upstream::start(Way::Instant);
    let server = start(&[("RATE_LIMIT_ENABLED", "false"), ("CHAT_UPSTREAM", &upstream.url)]);
    let models = |header: &str| {
        let mut connection = server.connect();
        connection.send(format!("GET /v1/models HTTP/1.1\r\nHost: t\r\n{header}\r\n")).unwrap();
        connection.answer().unwrap()
    };
    for header in
        ["", "Authorization: Bearer sk-x\r\n", "X-API-Key: cck_0123456789ab_x\r\n", "Authorization: Basic x\r\n"]
    {
        let denied = models(header);
        assert_eq!((denied.status, denied.header("www-authenticate")), (401, Some("Bearer")), "{header}");
        assert!(denied.json()["error"]["message"].is_string(), "{denied:?}");
    }
    let key = new(&server.home.join("keys"), &[]);
    for header in [
        format!("Authorization: Bearer {key}\r\n"),
        format!("authorization: bearer {key}\r\n"),
        format!("X-API-Key: {key}\r\n"),
    ] {
        until("the new key is known", || (0..16).all(|_| models(&header).status == 200));
    }
    // What was meant for us never reaches an upstream.
    assert!(upstream.heads.try_iter().all(|head| !head.contains(&key.to_lowercase())), "the key went on");
}

#[test]
fn a_file_that_root_makes_belongs_to_who_serves_and_the_operator_is_told() {
    if !nix::unistd::Uid::effective().is_root() {
        return println!("not run: only root can give a file away");
    }
    let home = std::env::temp_dir().join(format!("chatcorn-keys-owner-{}", std::process::id()));
    let directory = home.join("of-the-service");
    std::fs::create_dir_all(&directory).unwrap();
    std::os::unix::fs::chown(&directory, Some(65_534), Some(65_534)).unwrap();
    let owner = |path: &Path| std::fs::metadata(path).map(|found| (found.uid(), found.gid())).unwrap();
    let said = |output: Output| {
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    // As its directory; what is made beside it, too.
    let file = directory.join("keys");
    assert!(said(key(&file, &["new"])).contains("belongs to"));
    assert_eq!((owner(&file), owner(&directory.join("keys.lock"))), ((65_534, 65_534), (65_534, 65_534)));
    assert!(!said(key(&file, &["new"])).contains("is new"));
    // As the user that is configured; where nothing says whose it should be, what to do.
    let file = home.join("configured");
    assert!(said(key(&file, &["new", "--user", "65533"])).contains("belongs to 65533"));
    assert_eq!((owner(&file).0, owner(&home.join("configured.used")).0), (65_533, 65_533));
    let file = home.join("roots");
    assert!(said(key(&file, &["new"])).contains("chown"));
    assert_eq!(owner(&file), (0, 0));
    // What stands where the lock will be is never given away.
    let bait = home.join("bait");
    std::fs::write(&bait, "").unwrap();
    std::os::unix::fs::symlink(&bait, directory.join("other.lock")).unwrap();
    assert!(!key(&directory.join("other"), &["new"]).status.success());
    assert_eq!(owner(&bait), (0, 0));
    // A beginner's mistakes are told with what to do.
    for (file, word) in [(home.join("nowhere/keys"), "mkdir"), (home.join("missing"), "key new")] {
        let arguments: &[&str] = if word == "mkdir" { &["new"] } else { &["list"] };
        let output = key_in(&home, &file, arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(word) && output.stdout.is_empty(), "{output:?}");
    }
    std::fs::remove_dir_all(home).unwrap();
}
