//! A client that goes on in spite of a 429: it is answered in front of hyper, and can see no difference.

use super::{count, unit};
use crate::support::{Answer, Connection, Server, until};
use serde_json::Value;
use std::collections::BTreeSet;

const CLIENT: &str = "198.51.100.1";

/// Sends `request` and gives the answer.
fn hears(connection: &mut Connection, request: &str) -> Answer {
    connection.send(request).unwrap();
    connection.answer().unwrap()
}

/// What of an answer is the same in each.
fn constant(answer: &Answer) -> BTreeSet<(String, String)> {
    let differs = ["x-request-id", "ratelimit", "x-ratelimit-reset", "retry-after", "date", "content-length"];
    let told = |(name, value): &(String, String)| match differs.contains(&name.as_str()) {
        true => (name.clone(), String::new()),
        false => (name.clone(), value.clone()),
    };
    answer.headers.iter().map(told).collect()
}

/// The access lines so far.
fn lines(server: &Server) -> Vec<Value> {
    let parsed = server.text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<Value>>();
    parsed.into_iter().filter(|line| line["target"] == "access").collect()
}

fn server() -> Server {
    Server::start_with(&[("RATE_LIMIT_DEFAULT", "3/day"), ("RATE_LIMIT_CHAT", "3/day"), ("LOG_CLIENT", "full")], &[])
}

#[test]
fn who_goes_on_after_a_429_hears_the_same_each_time_and_each_is_logged() {
    let server = server();
    let id = "X-Request-Id: mine-1\r\n";
    let kinds = [
        unit(CLIENT),
        format!("GET /v1/models?key=hidden HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 198.51.100.2\r\nUser-Agent: again\r\n{id}\r\n"),
        "POST /api/chat HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 198.51.100.3\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
    ];
    for request in kinds {
        let mut connection = server.connect();
        let told: Vec<Answer> = (0..20).map(|_| hears(&mut connection, &request)).collect();
        let refused = &told[3..];
        assert!(refused.iter().all(|answer| answer.status == 429) && told[2].status != 429, "{told:?}");
        let first = &refused[0];
        for answer in refused {
            assert_eq!(constant(answer), constant(first));
            let mut body = answer.json();
            let seconds = answer.header("retry-after").unwrap();
            assert!(body.to_string().contains(&format!("Try again in {seconds} s.")), "{body}");
            if body["request_id"].is_string() {
                assert_eq!(body["request_id"].take(), answer.header("x-request-id").unwrap());
            }
        }
        let ids: BTreeSet<&str> = refused.iter().filter_map(|answer| answer.header("x-request-id")).collect();
        assert_eq!(ids.len(), if request.contains(id) { 1 } else { refused.len() });
        let lines =
            || lines(&server).into_iter().filter(|line| ids.contains(line["request_id"].as_str().unwrap_or("")));
        until("a line for each", || lines().filter(|line| line["status"] == 429).count() == refused.len());
        for line in lines().filter(|line| line["status"] == 429) {
            assert_eq!(line["verdict"], "refused");
            assert!(line["bytes_out"].as_u64() > Some(50) && !line.to_string().contains("hidden"), "{line}");
        }
    }
}

#[test]
fn who_is_let_begin_anew_is_heard_on_the_same_connection() {
    let server = server();
    let mut connection = server.connect();
    let statuses: Vec<u16> = (0..8).map(|_| hears(&mut connection, &unit(CLIENT)).status).collect();
    assert_eq!(statuses, [404, 404, 404, 429, 429, 429, 429, 429]);
    assert!(server.order(&["limits", "reset", CLIENT]).status.success());
    let statuses: Vec<u16> = (0..8).map(|_| hears(&mut connection, &unit(CLIENT)).status).collect();
    assert_eq!(statuses, [404, 404, 404, 429, 429, 429, 429, 429]);
}

#[test]
fn repeats_and_others_in_one_packet_are_answered_in_their_order() {
    let server = server();
    let mut connection = server.connect();
    (0..6).for_each(|_| _ = hears(&mut connection, &unit(CLIENT)));
    let health = "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n";
    let other = unit("198.51.100.9");
    let flood = format!("{}{health}{}{other}{health}", unit(CLIENT).repeat(20), unit(CLIENT).repeat(20));
    connection.send(flood).unwrap();
    let statuses: Vec<u16> = (0..43).map(|_| connection.answer().unwrap().status).collect();
    assert_eq!((count(&statuses[..20], 429), statuses[20], count(&statuses[21..41], 429)), (20, 200, 20));
    assert_eq!(statuses[41..], [404, 200]);
}

/// Else the end of a body and the request behind it would be taken for one request, and answered as one.
#[test]
fn the_end_of_a_body_is_no_part_of_the_request_that_repeats() {
    let server = Server::start_with(&[("RATE_LIMIT_DEFAULT", "1/day"), ("RATE_LIMIT_CHAT", "9/day")], &[]);
    let mut connection = server.connect();
    let limited = "GET /api/nothing HTTP/1.1\r\nHost: t\r\n\r\n";
    assert_eq!([hears(&mut connection, limited).status, hears(&mut connection, limited).status], [404, 429]);
    let free = "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n";
    let head = format!("POST /api/context/mode HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", free.len());
    assert_eq!(hears(&mut connection, &head).status, 429);
    // As the end of a body first, then as a request.
    assert_eq!(hears(&mut connection, &format!("{free}{limited}")).status, 429);
    for _ in 0..3 {
        let told = hears(&mut connection, &format!("{free}{limited}"));
        assert_eq!((told.status, connection.answer().unwrap().status), (200, 429));
    }
}
