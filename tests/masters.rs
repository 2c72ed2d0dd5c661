//! Two machines, as two masters that share one PostgreSQL and one Redis.

use crate::support::{Answer, Connection, Postgres, Redis, Server, Upstream, Way};

const LIMITS: [(&str, &str); 3] =
    [("RATE_LIMIT_DEFAULT", "8 per hour"), ("RATE_LIMIT_CHAT", "8 per hour"), ("FORWARDED_ALLOW_IPS", "127.0.0.1")];

fn chat(server: &Server, message: &str, session: Option<&str>) -> Answer {
    say(&server.address, message, session)
}

fn say(address: &str, message: &str, session: Option<&str>) -> Answer {
    let body = match session {
        Some(id) => serde_json::json!({"message": message, "session_id": id}),
        None => serde_json::json!({"message": message}),
    };
    Connection::open(address).post("/api/chat", &body.to_string()).unwrap()
}

fn users(answer: &Answer) -> Vec<String> {
    let history = answer.json()["history"].clone();
    history.as_array().unwrap().iter().map(|pair| pair[0].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_session_goes_on_at_another_master_and_limits_are_shared() {
    let Some(postgres) = Postgres::start(&[]) else { return };
    let redis = Redis::start();
    let upstream = Upstream::start(Way::Instant);
    // Both start at once on an empty database: one of them makes the schema.
    let start = || {
        let shared =
            [("CHAT_UPSTREAM", upstream.url.as_str()), ("DATABASE_URL", &postgres.url()), ("REDIS_URL", &redis.url())];
        Server::spawn(&[&shared[..], &LIMITS].concat(), &[])
    };
    let (one, other) = (start(), start());
    let (one, other) = (one.serving(), other.serving());
    let begun = chat(&one, "first", None);
    assert_eq!(begun.status, 200, "{begun:?}");
    let id = begun.json()["session_id"].as_str().unwrap().to_owned();
    let mut said = vec!["first".to_owned()];
    for (number, server) in [&other, &one, &other].into_iter().enumerate() {
        said.push(format!("turn {number}"));
        let answer = chat(server, said.last().unwrap(), Some(&id));
        assert_eq!(users(&answer), said, "the other master's turn is there at once");
    }
    // The context mode is the session's, not a master's.
    let fresh = format!(r#"{{"session_id":"{id}","mode":"fresh"}}"#);
    assert_eq!(one.connect().post("/api/context/mode", &fresh).unwrap().status, 200);
    let mode = other.connect().get(&format!("/api/context/mode?session_id={id}")).unwrap();
    assert_eq!(mode.json()["context_mode"], "fresh");
    // Six of eight are spent, wherever they were.
    let remaining = |answer: &Answer| answer.header("x-ratelimit-remaining").map(str::to_owned);
    let seventh = chat(&one, "seven", Some(&id));
    assert_eq!(remaining(&seventh).as_deref(), Some("1"), "{seventh:?}");
    drop(one);
    let eighth = chat(&other, "eight", Some(&id));
    assert_eq!((eighth.status, remaining(&eighth).as_deref()), (200, Some("0")));
    said.extend(["seven".to_owned(), "eight".to_owned()]);
    assert_eq!(users(&eighth), said, "what the dead master acknowledged is kept");
    assert_eq!(chat(&other, "nine", Some(&id)).status, 429);
}

#[test]
fn a_session_that_two_masters_write_at_once_keeps_every_turn() {
    let Some(postgres) = Postgres::start(&[]) else { return };
    let upstream = Upstream::start(Way::Instant);
    let start = || Server::start(&[("CHAT_UPSTREAM", &upstream.url), ("DATABASE_URL", &postgres.url())]);
    let (one, mut other) = (start(), start());
    let id = chat(&one, "first", None).json()["session_id"].as_str().unwrap().to_owned();
    let talk = |address: &str, name: &str| -> Vec<String> {
        let texts = (0..20).map(|number| format!("{name} {number}"));
        texts.filter(|text| say(address, text, Some(&id)).status == 200).collect()
    };
    let (left, right) = (one.address.as_str(), other.address.as_str());
    let (left, right) = std::thread::scope(|scope| {
        let talking = scope.spawn(|| talk(left, "one"));
        let right = talk(right, "other");
        (talking.join().unwrap(), right)
    });
    assert_eq!((left.len(), right.len()), (20, 20));
    other.signal(nix::sys::signal::Signal::SIGKILL);
    other.wait();
    let kept = users(&chat(&one, "last", Some(&id)));
    let of = |name: &str| kept.iter().filter(|text| text.starts_with(name)).cloned().collect::<Vec<_>>();
    assert_eq!((of("one "), of("other ")), (left, right), "each client's turns, in its order");
}
