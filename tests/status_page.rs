//! An operator at a browser, at the operators' own address.

use crate::page::check;
use crate::support::{Browser, Connection, LIMIT, Server, Upstream, Way, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::time::Instant;

const BROWSER: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";

fn get(admin: &str, path: &str, lines: &str) -> crate::support::Answer {
    let mut connection = Connection::open(admin);
    connection
        .send(format!("GET {path} HTTP/1.1\r\nHost: t\r\nOrigin: http://elsewhere.example\r\n{lines}\r\n"))
        .unwrap();
    connection.answer().unwrap()
}

fn started(way: Way) -> (Upstream, Server, String) {
    let upstream = Upstream::start(way);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url), ("ADMIN_BIND", "127.0.0.1:0")]);
    let admin = server.admin();
    (upstream, server, admin)
}

fn chat(server: &Server) {
    let answer = server.connect().post("/api/chat", r#"{"message":"x","context_mode":"fresh"}"#).unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn status_is_a_page_for_people_and_json_for_programs() {
    let (_upstream, server, admin) = started(Way::Instant);
    let page = get(&admin, "/status", BROWSER);
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"), "{policy}");
    for lines in ["", "Accept: */*\r\n", "Accept: application/json\r\n"] {
        let json = get(&admin, "/status", lines);
        assert_eq!(json.json()["workers"].as_array().unwrap().len(), 4);
        assert!(json.header("vary").unwrap().contains("Accept") && json.header("cache-control") == Some("no-store"));
        assert_eq!(json.header("access-control-allow-origin"), None);
    }
    for path in ["/status/status.css", "/status/status.js", "/status/draw.js", "/status/icon.svg"] {
        assert_eq!(get(&admin, path, "").status, 200, "{path}");
        assert_eq!(server.connect().get(path).unwrap().status, 404, "{path} is not for the public");
    }
    for path in ["/", "/page/page.js", "/api/health", "/status/other.js"] {
        assert_eq!(get(&admin, path, BROWSER).status, 404, "{path}");
    }
}

#[test]
fn an_operator_sees_workers_rates_and_latencies_change() {
    let (_upstream, server, admin) = started(Way::Instant);
    chat(&server);
    let Some(mut browser) = Browser::open(&format!("http://{admin}/status")) else { return };
    browser.wait_text("#health", "4 workers ready");
    browser.wait("document.querySelectorAll('#workers > li').length === 4");
    (0..30).for_each(|_| chat(&server));
    let seen = |tile: &str| format!("Number(document.querySelector('[data-name=\"{tile}\"] strong').textContent) > 0");
    browser.wait(&seen("requests"));
    browser.wait(&seen("first-50"));
    browser.wait(&seen("chat-50"));
    browser.wait("document.querySelector('svg.chart path.area.one')?.getBBox().height > 5");
    assert!(browser.text("#workers").contains("In flight") && browser.text("#cards").contains("2xx"));
    kill(Pid::from_raw(server.children("worker")[0]), Signal::SIGKILL).unwrap();
    browser.wait_text("#cards", "worker, killed");
    browser.click("#pause");
    browser.wait_text("#pause", "Go on");
    let worker = browser.text("#workers > li");
    chat(&server);
    assert_eq!(browser.text("#workers > li"), worker);
    browser.click("#pause");
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn the_status_page_is_readable_by_everybody_everywhere() {
    let (_upstream, server, admin) = started(Way::Instant);
    let Some(mut browser) = Browser::open(&format!("http://{admin}/status")) else { return };
    // A picture is worth looking at when there are some points on it.
    let (rounds, began) = (if std::env::var_os("CHATCORN_TEST_PICTURES").is_some() { 150 } else { 3 }, Instant::now());
    let mut turn = 0;
    until("some rounds", || {
        chat(&server);
        server.connect().get(if turn % 5 == 0 { "/nowhere" } else { "/api/health" }).unwrap();
        turn += 1;
        turn >= rounds || began.elapsed() > LIMIT * 3 / 4
    });
    browser.wait("document.querySelector('svg.chart path.area.one') !== null");
    let axe = std::env::var_os("CHATCORN_TEST_AXE").map(|path| std::fs::read_to_string(path).unwrap());
    if axe.is_none() {
        eprintln!("skipped in part: CHATCORN_TEST_AXE does not name axe.min.js (bin/test sets it)");
    }
    browser.call("Page.setBypassCSP", json!({"enabled": true}));
    for (width, height, phone) in [(1200, 1500, false), (360, 740, true), (320, 500, true)] {
        for scheme in ["light", "dark"] {
            browser.size(width, height, phone);
            browser.scheme(scheme);
            browser.picture(&format!("status-{width}-{scheme}"));
            let wide = browser.eval("document.documentElement.scrollWidth");
            assert!(wide.as_u64() <= Some(width.into()), "{wide} of {width}");
            if let Some(axe) = &axe {
                check(&mut browser, axe, &format!("{width} {scheme}"));
            }
        }
    }
}
