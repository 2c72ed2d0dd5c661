//! A person at a browser.

use crate::support::{Browser, LIMIT, Server, Upstream, Way};
use serde_json::{Value, json};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

fn get(server: &Server, path: &str, lines: &str) -> crate::support::Answer {
    let mut connection = server.connect();
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: t\r\n{lines}\r\n")).unwrap();
    connection.answer().unwrap()
}

/// A server behind a fake model, and a browser at its page; `None` where there is no browser.
fn visit(way: Way, variables: &[(&str, &str)]) -> Option<(Upstream, Server, Browser)> {
    let upstream = Upstream::start(way);
    let server = Server::start(&[&[("CHAT_UPSTREAM", upstream.url.as_str())], variables].concat());
    let browser = Browser::open(&format!("http://{}/", server.address))?;
    Some((upstream, server, browser))
}

fn say(browser: &mut Browser, text: &str) {
    browser.wait("!document.querySelector('#send').disabled");
    browser.eval("document.querySelector('#message').focus()");
    browser.type_text(text);
    browser.press("Enter", 0);
}

#[test]
fn root_is_a_page_for_browsers_and_json_for_programs() {
    let server = Server::start_with(&[("RATE_LIMIT_DEFAULT", "1 per hour")], &[]);
    let page = get(&server, "/", &format!("Accept: {BROWSER}\r\n"));
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("vary").unwrap().contains("Accept") && page.body.starts_with("<!doctype html>"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"), "{policy}");
    for lines in
        ["", "Accept: */*\r\n", "Accept: application/json\r\n", "Accept: text/html;q=0.1, application/json\r\n"]
    {
        let answer = get(&server, "/", lines);
        assert_eq!(answer.json()["name"], "chatcorn");
        assert!(answer.header("vary").unwrap().contains("Accept"));
    }
    for path in ["/page/page.css", "/page/page.js", "/page/talk.js", "/page/text.js", "/page/icon.svg"] {
        let file = get(&server, path, "");
        assert_eq!((file.status, file.header("cache-control")), (200, Some("no-cache")), "{path}");
        assert!(file.header("x-content-type-options") == Some("nosniff") && file.header("ratelimit").is_none());
        let etag = file.header("etag").unwrap();
        let again = get(&server, path, &format!("If-None-Match: {etag}\r\n"));
        assert_eq!((again.status, again.body.as_str(), again.header("etag")), (304, "", Some(etag)), "{path}");
    }
    assert_eq!(get(&server, "/page/other.js", "").status, 404);
}

#[test]
fn a_person_asks_stops_asks_again_and_reloads() {
    let Some((upstream, _server, mut browser)) = visit(Way::Held, &[]) else { return };
    browser.wait_text("#health", "Ready");
    browser.picture("welcome");
    say(&mut browser, "What is one and two?");
    browser.wait_text(".reply .text", "one");
    assert_eq!(browser.eval("document.querySelector('#message').value"), "");
    let shown = "['#stop', '#send', '#welcome'].map((one) => document.querySelector(one).checkVisibility())";
    assert_eq!(browser.eval(shown), json!([true, false, false]));
    browser.picture("streaming");
    browser.click("#stop");
    browser.wait_text(".note", "Stopped.");
    browser.picture("stopped");
    upstream.left.recv_timeout(LIMIT).unwrap();
    upstream.release();
    browser.click(".again");
    browser.wait_text(".reply .text", "one two three");
    browser.wait_text(".figures", "3 tokens");
    assert_eq!(browser.text("#spoken"), "one two three");
    say(&mut browser, "And then?");
    browser.wait("document.querySelectorAll('.figures')[1]?.innerText.includes('tokens') ?? false");
    browser.picture("answered");
    let before = browser.eval("document.querySelector('#talk').innerText");
    browser.reload();
    browser.wait("document.querySelectorAll('.turn').length === 2");
    assert_eq!(browser.eval("document.querySelector('#talk').innerText"), before);
    say(&mut browser, "Goodbye");
    browser.wait("document.querySelectorAll('.figures')[2]?.innerText.includes('tokens') ?? false");
    let mut asked = Value::Null;
    while let Ok(request) = upstream.requests.try_recv() {
        asked = serde_json::from_str(&request).unwrap();
    }
    let said: Vec<&str> =
        asked["messages"].as_array().unwrap().iter().filter_map(|one| one["content"].as_str()).collect();
    assert_eq!(said, ["What is one and two?", "one two three", "And then?", "one two three", "Goodbye"]);
    browser.click("#new");
    browser.wait("document.querySelectorAll('.turn').length === 0");
    assert!(browser.text("#welcome").contains("on your mind"));
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn without_what_was_said_before_each_message_stands_alone() {
    let Some((upstream, _server, mut browser)) = visit(Way::Instant, &[]) else { return };
    browser.click("label.switch");
    for text in ["first", "second"] {
        say(&mut browser, text);
        browser.wait_text("#talk > :last-child .figures", "tokens");
    }
    let last = upstream.requests.try_iter().last().unwrap();
    let asked: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(asked["messages"].as_array().unwrap().len(), 1, "{asked}");
}

#[test]
fn a_full_limit_counts_down_and_lets_go_on() {
    let limits = [("RATE_LIMIT_ENABLED", "true"), ("RATE_LIMIT_CHAT", "2 per 8 seconds")];
    let Some((_upstream, _server, mut browser)) = visit(Way::Instant, &limits) else { return };
    say(&mut browser, "one");
    browser.wait_text("#limit", "1 of 2 messages left");
    say(&mut browser, "two");
    browser.wait_text("#talk > :nth-child(2) .figures", "tokens");
    say(&mut browser, "three");
    browser.wait_text(".failure:not([hidden]) h3", "A short break");
    browser.wait_text("#limit", "Next message in");
    assert_eq!(browser.eval("document.querySelector('#send').disabled"), true);
    assert!(browser.text("#talk > :last-child .what").contains("You can go on in"));
    assert!(browser.text("#alarm").contains("A short break"));
    browser.picture("limited");
    browser.reload();
    browser.wait_text("#limit", "Next message in");
    assert_eq!(browser.eval("document.querySelector('#send').disabled"), true);
    browser.wait("!document.querySelector('#talk > :last-child .retry').disabled");
    browser.click("#talk > :last-child .retry");
    browser.wait_text("#talk > :last-child .reply .text", "one two three");
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn failures_are_told_in_words_and_can_be_tried_again() {
    for (way, title) in [(Way::Fails, "The model could not answer"), (Way::Breaks, "The model could not answer")] {
        let Some((_upstream, _server, mut browser)) = visit(way, &[]) else { return };
        say(&mut browser, "hello");
        browser.wait_text(".failure h3", title);
        assert!(browser.text(".failure").contains("Try again") && !browser.text("body").contains("hunter2"));
        assert_eq!(browser.text(".reply .text"), if way == Way::Breaks { "one " } else { "" });
        browser.picture(&format!("failure-{way:?}"));
        assert_eq!(browser.complaints, [""; 0]);
    }
}

#[test]
fn a_server_that_goes_away_is_told_and_looked_for() {
    let Some((upstream, mut server, mut browser)) = visit(Way::Held, &[("GRACEFUL_TIMEOUT", "0")]) else { return };
    say(&mut browser, "hello");
    browser.wait_text(".reply .text", "one");
    server.signal(nix::sys::signal::Signal::SIGTERM);
    server.wait();
    browser.wait("!document.querySelector('.failure').hidden");
    browser.wait_text("#health", "Offline");
    say(&mut browser, "are you there?");
    browser.wait_text("#talk > :last-child .failure h3", "No connection to the server");
    browser.picture("offline");
    drop(upstream);
}

#[test]
fn a_model_that_loads_is_waited_for() {
    let Some((_upstream, _server, mut browser)) = visit(Way::Instant, &[]) else { return };
    browser.wait_text("#health", "Ready");
    // What the server says while its engine loads, put in the place of its answer.
    let body = "eyJzdGF0dXMiOiJpbml0aWFsaXppbmciLCJvcmNoZXN0cmF0b3JfcmVhZHkiOmZhbHNlfQ==";
    browser.call("Fetch.enable", json!({"patterns": [{"urlPattern": "*/api/health"}]}));
    browser.call("Page.reload", json!({}));
    let paused = browser.event("Fetch.requestPaused");
    browser.call("Fetch.fulfillRequest", json!({"requestId": paused["requestId"], "responseCode": 200, "body": body}));
    browser.wait_text("#notice", "The model is being loaded");
    browser.eval("document.querySelector('#message').focus()");
    browser.type_text("early");
    assert_eq!(browser.eval("document.querySelector('#send').disabled"), true);
    browser.picture("loading");
    let paused = browser.event("Fetch.requestPaused");
    browser.call("Fetch.continueRequest", json!({"requestId": paused["requestId"]}));
    browser.wait_text("#health", "Ready");
    assert_eq!(browser.text("#notice"), "");
    browser.press("Enter", 0);
    browser.wait_text(".reply .text", "one two three");
}

#[test]
fn a_server_with_keys_asks_for_one_and_keeps_it_in_the_tab() {
    let Some((_upstream, _server, mut browser)) = visit(Way::Instant, &[]) else { return };
    // What a server with API keys says, put in the place of this one's answer.
    let body = "eyJzdWNjZXNzIjpmYWxzZSwiZXJyb3IiOiJ1bmF1dGhvcml6ZWQiLCJtZXNzYWdlIjoiIiwicmVxdWVzdF9pZCI6InIxIn0=";
    browser.call("Fetch.enable", json!({"patterns": [{"urlPattern": "*/api/chat"}]}));
    say(&mut browser, "hello");
    let paused = browser.event("Fetch.requestPaused");
    assert!(paused["request"]["headers"]["Authorization"].is_null());
    browser.call("Fetch.fulfillRequest", json!({"requestId": paused["requestId"], "responseCode": 401, "body": body}));
    browser.wait_text(".failure h3", "This server asks for a key");
    browser.wait("document.activeElement.type === 'password'");
    browser.picture("key");
    browser.type_text("ck_abc");
    browser.press("Enter", 0);
    let paused = browser.event("Fetch.requestPaused");
    assert_eq!(paused["request"]["headers"]["Authorization"], "Bearer ck_abc");
    browser.call("Fetch.continueRequest", json!({"requestId": paused["requestId"]}));
    browser.wait_text(".reply .text", "one two three");
    browser.reload();
    say(&mut browser, "again");
    let paused = browser.event("Fetch.requestPaused");
    assert_eq!(paused["request"]["headers"]["Authorization"], "Bearer ck_abc");
    assert_eq!(browser.eval("localStorage.length + document.cookie.length"), 0);
}

#[test]
fn a_long_conversation_stays_where_it_is_read() {
    let long = r"first\n\n1\n\n2\n\n3\n\n4\n\n5\n\n6\n\n7\n\n8\n\n9\n\n10\n\n11\n\n12\n\n13\n\n14\n\n15\n\nlast";
    let Some((_upstream, _server, mut browser)) = visit(Way::Says(long), &[]) else { return };
    for text in ["one", "two"] {
        say(&mut browser, text);
        browser.wait("document.querySelector('#talk > :last-child .reply').dataset.state === 'done'");
    }
    browser.wait("innerHeight + scrollY >= document.documentElement.scrollHeight - 2");
    browser.eval("scrollTo(0, 0)");
    browser.wait("document.querySelector('#down').checkVisibility()");
    browser.picture("long");
    browser.click("#down");
    browser.wait("!document.querySelector('#down').checkVisibility()");
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn replies_are_text_and_never_markup() {
    let reply = r#"# Loops\nA **loop** with `for`:\n\n1. first\n2. <b>second</b>\n\n```python\nfor i in range(3):\n    print(\"<script>alert(1)</script>\", i)\n```\n<img src=x onerror=alert(1)> [x](javascript:alert(1))\n\n- ends"#;
    let Some((_upstream, _server, mut browser)) = visit(Way::Says(reply), &[]) else { return };
    say(&mut browser, "<img src=x onerror=alert(2)>");
    browser.wait_text(".reply[data-state=done] .text", "ends");
    assert_eq!(browser.eval("document.querySelectorAll('#talk img, #talk script, #talk b, #talk a').length"), 0);
    assert_eq!(browser.text(".said .text"), "<img src=x onerror=alert(2)>");
    let code = "for i in range(3):\n    print(\"<script>alert(1)</script>\", i)";
    assert_eq!(browser.text(".code code"), code);
    assert_eq!((browser.text(".code span"), browser.text(".reply strong")), ("python".into(), "loop".into()));
    assert_eq!(browser.eval("document.querySelectorAll('.reply ol li, .reply ul li').length"), 3);
    browser.picture("code");
    browser.scheme("dark");
    browser.picture("code-dark");
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn everything_works_by_keyboard_and_on_a_phone() {
    let Some((upstream, _server, mut browser)) = visit(Way::Held, &[]) else { return };
    browser.wait_text("#health", "Ready");
    assert_eq!(browser.eval("document.activeElement.id"), "message");
    browser.type_text("two");
    browser.press("Enter", 8);
    browser.type_text("lines");
    assert_eq!(browser.eval("document.querySelector('#message').value"), "two\nlines");
    browser.press("Tab", 0);
    assert_eq!(browser.eval("document.activeElement.id"), "send");
    browser.press("Tab", 0);
    browser.press(" ", 0);
    assert_eq!(browser.eval("document.querySelector('#remember').checked"), false);
    browser.press("Tab", 8);
    browser.press("Enter", 0);
    browser.wait_text(".reply .text", "one");
    assert_eq!(browser.eval("document.activeElement.id"), "message");
    browser.press("Escape", 0);
    browser.wait_text(".note", "Stopped.");
    upstream.release();
    browser.click(".again");
    browser.wait_text(".figures", "3 tokens");
    browser.size(360, 740, true);
    say_on_phone(
        &mut browser,
        "A word that is longer than the screen: https://example.org/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    );
    browser.wait_text("#talk > :last-child .figures", "3 tokens");
    assert_eq!(browser.eval("document.documentElement.scrollWidth"), 360);
    let small = "[...document.querySelectorAll('button, label.switch')].filter((b) => b.checkVisibility()).map((b) => [b.id || b.className, b.getBoundingClientRect().height]).filter(([, height]) => height < 32)";
    assert_eq!(browser.eval(small), json!([]));
    browser.picture("phone");
    browser.scheme("dark");
    browser.picture("phone-dark");
    browser.size(320, 500, true);
    assert_eq!(browser.eval("document.documentElement.scrollWidth"), 320);
}

/// There Enter starts a new line, and the button sends.
fn say_on_phone(browser: &mut Browser, text: &str) {
    browser.eval("document.querySelector('#message').focus()");
    browser.type_text(text);
    browser.click("#send");
}

#[test]
fn axe_finds_nothing_to_mend() {
    let Some(path) = std::env::var_os("CHATCORN_TEST_AXE") else {
        eprintln!("skipped: CHATCORN_TEST_AXE does not name axe.min.js (bin/test sets it)");
        return;
    };
    let axe = std::fs::read_to_string(path).unwrap();
    let reply = r#"A **list**:\n- one\n- `two`\n\n```\nlet a = 1;\n```"#;
    let limits = [("RATE_LIMIT_ENABLED", "true"), ("RATE_LIMIT_CHAT", "1 per minute")];
    let Some((_upstream, _server, mut browser)) = visit(Way::Says(reply), &limits) else { return };
    browser.call("Page.setBypassCSP", json!({"enabled": true}));
    browser.reload();
    browser.wait_text("#health", "Ready");
    check(&mut browser, &axe, "welcome");
    say(&mut browser, "hello");
    browser.wait_text(".reply .text", "let a = 1");
    say(&mut browser, "again");
    browser.wait_text("#talk > :last-child .failure h3", "A short break");
    for (width, phone) in [(900, false), (360, true)] {
        for scheme in ["light", "dark"] {
            browser.size(width, 740, phone);
            browser.scheme(scheme);
            check(&mut browser, &axe, &format!("{width} {scheme}"));
        }
    }
}

pub fn check(browser: &mut Browser, axe: &str, what: &str) {
    browser.eval(&format!("{axe};0"));
    let run = "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}).then((found) => \
        found.violations.map((one) => one.id + ': ' + one.nodes.map((node) => node.html + ' ' + node.failureSummary).join(' | ')))";
    assert_eq!(browser.eval(run), json!([]), "{what}");
}
