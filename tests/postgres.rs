//! PostgreSQL under a server: what happens to chats when it stops, restarts, dies, is full, only reads, and by TLS.

use crate::support::{Answer, Connection, Postgres, Server, Upstream, Way, run, until};
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn server(upstream: &Upstream, postgres: &Postgres) -> Server {
    Server::start(&[("CHAT_UPSTREAM", &upstream.url), ("DATABASE_URL", &postgres.url())])
}

fn chat(server: &Server) -> Answer {
    say(&server.address, "hello", "s1").unwrap()
}

fn say(address: &str, message: &str, session: &str) -> std::io::Result<Answer> {
    let body = serde_json::json!({"message": message, "session_id": session}).to_string();
    Connection::try_open(address)?.post("/api/chat", &body)
}

/// Chat is refused in time, as it should be, and nothing else is.
fn only_chat_is_refused(server: &Server) {
    let begun = Instant::now();
    let answer = chat(server);
    assert_eq!((answer.status, answer.json()["error"].as_str()), (503, Some("not_ready")), "{answer:?}");
    assert!(answer.header("retry-after").is_some());
    assert!(begun.elapsed() < Duration::from_millis(2500), "refused after {:?}", begun.elapsed());
    assert_eq!(server.connect().get("/api/health").unwrap().status, 200);
    let asked = r#"{"model":"any","messages":[{"role":"user","content":"hello"}]}"#;
    assert_eq!(server.connect().post("/v1/chat/completions", asked).unwrap().status, 200, "/v1 stores nothing");
}

fn whole_turns(postgres: &Postgres) -> usize {
    postgres.sql("SELECT count(*) FROM chatcorn.turns WHERE state = 'complete'").parse().unwrap()
}

#[test]
fn a_server_that_stops_is_a_503_and_chat_goes_on_when_it_is_back() {
    let Some(mut postgres) = Postgres::start(&[]) else { return };
    let upstream = Upstream::start(Way::Instant);
    let server = server(&upstream, &postgres);
    assert_eq!(chat(&server).status, 200);
    for (way, kept) in [(Signal::SIGINT, 1), (Signal::SIGQUIT, 2)] {
        postgres.stop(way);
        only_chat_is_refused(&server);
        // When it has been away for long nobody waits any more.
        until("a refusal at once", || {
            let begun = Instant::now();
            chat(&server).status == 503 && begun.elapsed() < Duration::from_millis(500)
        });
        assert_eq!(server.connect().get("/readyz").unwrap().status, 503);
        postgres.start_again();
        until("chat again", || chat(&server).status == 200);
        until("ready again", || server.connect().get("/readyz").unwrap().status == 200);
        assert!(whole_turns(&postgres) > kept);
    }
    assert!(server.text().contains("the session store is away"), "{}", server.text());
    assert!(!server.text().contains("panic"));
}

#[test]
fn a_quick_restart_costs_no_chat() {
    let Some(mut postgres) = Postgres::start(&[]) else { return };
    let upstream = Upstream::start(Way::Instant);
    let server = server(&upstream, &postgres);
    assert_eq!(chat(&server).status, 200);
    postgres.stop(Signal::SIGINT);
    let address = server.address.as_str();
    let waiting = std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..8).map(|_| scope.spawn(|| say(address, "hello", "s1").unwrap().status)).collect();
        postgres.start_again();
        waiting.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(waiting, [200; 8]);
    assert_eq!(whole_turns(&postgres), 9);
}

#[test]
fn a_server_that_hangs_is_a_503_in_time() {
    let Some(postgres) = Postgres::start(&[]) else { return };
    let upstream = Upstream::start(Way::Instant);
    let server = server(&upstream, &postgres);
    assert_eq!(chat(&server).status, 200);
    postgres.signal_all(Signal::SIGSTOP);
    only_chat_is_refused(&server);
    postgres.signal_all(Signal::SIGCONT);
    until("chat again", || chat(&server).status == 200);
}

#[test]
fn a_locked_session_holds_up_nobody_else() {
    let Some(postgres) = Postgres::start(&[]) else { return };
    let upstream = Upstream::start(Way::Instant);
    let server = server(&upstream, &postgres);
    assert_eq!(chat(&server).status, 200);
    let lock = "BEGIN; SELECT FROM chatcorn.sessions WHERE name = 's1' FOR UPDATE; SELECT pg_sleep(4); COMMIT";
    std::thread::scope(|scope| {
        let locking = scope.spawn(|| postgres.sql(lock));
        until("the lock", || {
            let held =
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(4)%' AND wait_event = 'PgSleep'";
            postgres.sql(held) == "1"
        });
        let others: Vec<_> = (0..8)
            .map(|number| {
                let address = server.address.as_str();
                scope.spawn(move || say(address, "hello", &format!("other{number}")).unwrap().status)
            })
            .collect();
        assert_eq!(chat(&server).status, 503);
        assert!(others.into_iter().all(|other| other.join().unwrap() == 200));
        locking.join().unwrap();
    });
    assert_eq!(chat(&server).status, 200);
}

#[test]
fn a_server_without_room_or_that_only_reads_is_a_503() {
    let Some(postgres) = Postgres::start(&["max_connections=5", "superuser_reserved_connections=3"]) else { return };
    postgres.sql("CREATE ROLE guest LOGIN; GRANT ALL ON DATABASE postgres TO guest");
    let upstream = Upstream::start(Way::Instant);
    let url = postgres.url().replace("tests@", "guest@");
    // Two connections for eight that want one: chats go on by those that have one, or are refused; nothing breaks.
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url), ("DATABASE_URL", &url)]);
    let statuses: Vec<u16> = (0..20).map(|_| chat(&server).status).collect();
    assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
    assert!(statuses.contains(&200), "{statuses:?}");
    drop(server);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url), ("DATABASE_URL", &url), ("WEB_CONCURRENCY", "1")]);
    until("a connection", || chat(&server).status == 200);
    postgres.sql("ALTER SYSTEM SET default_transaction_read_only = on");
    postgres.sql("SELECT pg_reload_conf()");
    until("a refusal", || chat(&server).status == 503);
    only_chat_is_refused(&server);
    postgres.sql("ALTER SYSTEM RESET default_transaction_read_only");
    postgres.sql("SELECT pg_reload_conf()");
    until("chat again", || chat(&server).status == 200);
}

#[test]
fn a_server_that_is_away_at_the_start_is_a_503_until_it_comes() {
    let Some(mut postgres) = Postgres::start(&[]) else { return };
    let upstream = Upstream::start(Way::Instant);
    postgres.stop(Signal::SIGINT);
    let server = server(&upstream, &postgres);
    only_chat_is_refused(&server);
    postgres.start_again();
    until("chat", || chat(&server).status == 200);
}

#[test]
fn what_was_answered_is_kept_when_workers_and_the_database_are_killed() {
    let Some(mut postgres) = Postgres::start(&[]) else { return };
    let upstream = Upstream::start(Way::Instant);
    let server = server(&upstream, &postgres);
    let rounds = if std::env::var_os("CHATCORN_TEST_LONG").is_some() { 30 } else { 4 };
    let mut answered = Vec::new();
    for round in 0..rounds {
        let told = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (address, told) = (server.address.as_str(), &told);
                scope.spawn(move || {
                    for number in 0..10 {
                        let message = format!("{round}.{writer}.{number}");
                        if say(address, &message, &format!("w{writer}")).is_ok_and(|answer| answer.status == 200) {
                            told.lock().unwrap().push(message);
                        }
                    }
                });
            }
            until("some answers", || told.lock().unwrap().len() >= 5);
            let worker = server.children("worker")[round % 4];
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker), Signal::SIGKILL);
            postgres.stop(if round % 2 == 0 { Signal::SIGQUIT } else { Signal::SIGKILL });
            postgres.start_again();
        });
        answered.extend(told.into_inner().unwrap());
        until("chat again", || chat(&server).status == 200);
    }
    let kept = postgres.sql("SELECT said FROM chatcorn.turns WHERE state = 'complete' AND reply = 'one two three'");
    let kept: std::collections::BTreeSet<&str> = kept.lines().collect();
    assert!(answered.len() >= 5 * rounds);
    for message in &answered {
        assert!(kept.contains(message.as_str()), "{message} is lost");
    }
}

#[test]
fn an_operator_sees_sessions_and_a_wrong_database_is_named() {
    let Some(postgres) = Postgres::start(&[]) else { return };
    let upstream = Upstream::start(Way::Instant);
    let server = server(&upstream, &postgres);
    assert_eq!(chat(&server).status, 200);
    let url = postgres.url();
    let said = |arguments: &[&str]| {
        let output = run(arguments, &[("DATABASE_URL", &url), ("CHAT_UPSTREAM", "http://127.0.0.1:9")], &[]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, list, _) = said(&["sessions", "list"]);
    assert!(code == Some(0) && list.contains(" s1 "), "{list}");
    assert!(said(&["sessions", "show", "1"]).1.contains("assistant: one two three"));
    assert!(said(&["sessions", "export"]).1.contains(r#""user":"hello""#));
    assert_eq!(said(&["sessions", "purge"]).1, "0 sessions deleted\n");
    assert_eq!(said(&["sessions", "delete", "1"]).0, Some(0));
    assert_eq!(said(&["sessions", "delete", "1"]).0, Some(1));
    assert!(said(&["migrate"]).1.contains("schema "));
    let status = server.status();
    assert!(status["store"]["path"].as_str().unwrap().starts_with("postgres://"), "{status}");
    let wrong = url.replace("/postgres", "/nowhere").replace("tests@", "tests:hunter2hunter2@");
    let output = run(&["migrate"], &[("DATABASE_URL", &wrong), ("CHAT_UPSTREAM", "http://127.0.0.1:9")], &[]);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(output.status.code() == Some(1) && text.contains("\"nowhere\" does not exist"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn a_password_from_a_file_and_tls_as_sslmode_says() {
    let Some(mut postgres) = Postgres::start(&[]) else { return };
    if !authority(postgres.home()) {
        eprintln!("skipped: there is no openssl");
        return;
    }
    postgres.sql("SET password_encryption = 'scram-sha-256'; ALTER ROLE tests PASSWORD 'hunter2hunter2'");
    let rules =
        "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\nhostssl all all ::1/128 scram-sha-256\n";
    std::fs::write(postgres.home().join("pg_hba.conf"), rules).unwrap();
    postgres.sql("ALTER SYSTEM SET ssl = on");
    postgres.stop(Signal::SIGINT);
    postgres.start_again();
    let root = postgres.home().join("ca.pem").display().to_string().replace('/', "%2F");
    let migrate = |parameters: &str, password: &str| {
        let url = postgres.tcp_url(parameters).replace("tests@", &format!("tests:{password}@"));
        let variables = [("DATABASE_URL_FILE", "url"), ("CHAT_UPSTREAM", "http://127.0.0.1:9")];
        let output = run(&["migrate"], &variables, &[("url", &format!("{url}\n"))]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        (output.status.code(), text)
    };
    let good = "hunter2hunter2";
    for parameters in ["sslmode=require".to_owned(), format!("sslmode=verify-full&sslrootcert={root}"), String::new()] {
        let (code, text) = migrate(&parameters, good);
        assert_eq!(code, Some(0), "{parameters}: {text}");
    }
    let checked = run(&["check"], &[("DATABASE_URL", &postgres.tcp_url("sslmode=require"))], &[]);
    let advice = String::from_utf8(checked.stderr).unwrap();
    assert!(advice.contains("verify-full"), "require says what it does not check: {advice}");
    for (parameters, password, reason) in [
        ("sslmode=disable", good, "no encryption"),
        ("sslmode=verify-full", good, "certificate"),
        ("sslmode=require", "hunter2wrong", "password authentication failed"),
    ] {
        let (code, text) = migrate(parameters, password);
        assert!(code == Some(1) && text.contains(reason), "{parameters}: {code:?} {text}");
    }
    let port = postgres.tcp_url("").replace("localhost", "127.0.0.1");
    let other_name = port.replace("tests@", "tests:hunter2hunter2@");
    for (mode, expected) in [("verify-full", Some(1)), ("verify-ca", Some(0))] {
        let url = format!("{other_name}sslmode={mode}&sslrootcert={root}");
        let output = run(&["migrate"], &[("DATABASE_URL", &url), ("CHAT_UPSTREAM", "http://127.0.0.1:9")], &[]);
        assert_eq!(output.status.code(), expected, "{mode}: {output:?}");
    }
}

/// An authority, and a certificate of the name localhost for the server.
fn authority(home: &Path) -> bool {
    let script = "umask 077; openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=tests 2>/dev/null &&
        openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost 2>/dev/null &&
        printf 'subjectAltName=DNS:localhost\\nbasicConstraints=CA:FALSE\\n' >ext &&
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile ext 2>/dev/null &&
        chown --reference=PG_VERSION server.key server.crt";
    Command::new("sh").args(["-c", script]).current_dir(home).status().is_ok_and(|status| status.success())
}
