//! A headless Chromium, driven over the DevTools protocol through a pair of pipes.
//! <https://chromedevtools.github.io/devtools-protocol/>

use super::{LIMIT, until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const PROGRAM: &str = "/usr/bin/chromium";
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
static PLACES: AtomicU32 = AtomicU32::new(0);

/// One tab.
pub struct Browser {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    number: u64,
    /// Heard while something else was waited for.
    events: Vec<Value>,
    session: String,
    profile: PathBuf,
    /// What the console said that a developer should see: exceptions, errors, violations of the policy.
    pub complaints: Vec<String>,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// Opens a page; `None`, with the reason, where there is no Chromium.
    pub fn open(url: &str) -> Option<Browser> {
        if !Path::new(PROGRAM).exists() {
            eprintln!("skipped: {PROGRAM} is not installed (Debian's package chromium)");
            return None;
        }
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let profile = std::env::temp_dir().join(format!("chatcorn-browser-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&profile).unwrap();
        let mut child = program(&profile).spawn().unwrap();
        let (sender, messages) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for message in output.split(0).map_while(Result::ok) {
                let _ = sender.send(serde_json::from_slice(&message).unwrap_or_default());
            }
        });
        let input = child.stdin.take().unwrap();
        let mut browser = Browser {
            child,
            input,
            messages,
            number: 0,
            events: Vec::new(),
            session: String::new(),
            profile,
            complaints: Vec::new(),
            _turn: turn,
        };
        browser.attach();
        browser.go(url);
        Some(browser)
    }

    fn attach(&mut self) {
        let target = self.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = self.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        self.session = attached["sessionId"].as_str().unwrap().to_owned();
        ["Page.enable", "Runtime.enable", "Log.enable", "Network.enable"].iter().for_each(|name| {
            self.call(name, json!({}));
        });
        self.size(900, 760, false);
    }

    /// Calls a method of the protocol and gives its result.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut message = json!({"id": self.number, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.input.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let heard = self.messages.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("no answer to {method}"));
            if heard["id"] == self.number {
                assert!(heard["error"].is_null(), "{method}: {}", heard["error"]);
                return heard["result"].clone();
            }
            self.hear(&heard);
        }
    }

    /// The parameters of the next event of this name.
    pub fn event(&mut self, name: &str) -> Value {
        if let Some(at) = self.events.iter().position(|event| event["method"] == name) {
            return self.events.remove(at)["params"].clone();
        }
        loop {
            let heard = self.messages.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("no event {name}"));
            if heard["method"] == name {
                return heard["params"].clone();
            }
            self.hear(&heard);
        }
    }

    fn hear(&mut self, message: &Value) {
        let what = &message["params"];
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.complaints.push(what["exceptionDetails"].to_string()),
            Some("Runtime.consoleAPICalled") if what["type"] == "error" => self.complaints.push(what.to_string()),
            // A 429 or 503 is an entry of the network's; the page tells of it itself.
            Some("Log.entryAdded") if what["entry"]["source"] != "network" => self.complaints.push(what.to_string()),
            Some("Fetch.requestPaused") => self.events.push(message.clone()),
            _ => {}
        }
    }

    /// Goes to an address and waits until the page's script has run.
    pub fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
        self.wait("document.readyState === 'complete' && document.querySelector('#health') !== null");
    }

    /// What F5 does.
    pub fn reload(&mut self) {
        self.eval("window.before = true");
        self.call("Page.reload", json!({}));
        self.wait("!window.before && document.readyState === 'complete'");
    }

    /// The value of an expression.
    pub fn eval(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let result = self.call("Runtime.evaluate", parameters);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    /// The visible text of the first element that this selector finds; empty without one.
    pub fn text(&mut self, selector: &str) -> String {
        let text = self.eval(&format!("document.querySelector({selector:?})?.innerText ?? ''"));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true.
    pub fn wait(&mut self, expression: &str) {
        let mut seen = Value::Null;
        until(expression, || {
            let parameters = json!({"expression": expression, "returnByValue": true});
            seen = self.call("Runtime.evaluate", parameters);
            seen["result"]["value"] == true
        });
    }

    /// Waits until an element's text is this.
    pub fn wait_text(&mut self, selector: &str, text: &str) {
        self.wait(&format!("document.querySelector({selector:?})?.innerText.includes({text:?}) ?? false"));
    }

    /// Types into what has the focus.
    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Presses and releases a key, by its `key` and `code` names.
    pub fn press(&mut self, key: &str, modifiers: u32) {
        let (code, number, text) = match key {
            "Enter" => ("Enter", 13, "\r"),
            "Tab" => ("Tab", 9, ""),
            "Escape" => ("Escape", 27, ""),
            " " => ("Space", 32, " "),
            other => panic!("no such key here: {other}"),
        };
        let mut event = json!({"type": if text.is_empty() { "rawKeyDown" } else { "keyDown" }, "key": key, "code": code,
            "windowsVirtualKeyCode": number, "modifiers": modifiers, "text": text});
        self.call("Input.dispatchKeyEvent", event.clone());
        event["type"] = json!("keyUp");
        self.call("Input.dispatchKeyEvent", event);
    }

    /// Clicks the middle of an element.
    pub fn click(&mut self, selector: &str) {
        self.wait(&format!("document.querySelector({selector:?})?.checkVisibility() ?? false"));
        let middle = format!(
            "(() => {{ const box = document.querySelector({selector:?}); box.scrollIntoView({{block: 'nearest'}}); \
             const {{x, y, width, height}} = box.getBoundingClientRect(); return [x + width / 2, y + height / 2]; }})()"
        );
        let middle = self.eval(&middle);
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": middle[0], "y": middle[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// A window of this size, or a phone.
    pub fn size(&mut self, width: u32, height: u32, phone: bool) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": if phone { 2 } else { 1 }, "mobile": phone});
        self.call("Emulation.setDeviceMetricsOverride", size);
        self.call("Emulation.setTouchEmulationEnabled", json!({"enabled": phone}));
    }

    /// `light` or `dark`.
    pub fn scheme(&mut self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// A picture for a person to look at, when `CHATCORN_TEST_PICTURES` names a directory.
    pub fn picture(&mut self, name: &str) {
        let Ok(directory) = std::env::var("CHATCORN_TEST_PICTURES") else { return };
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"}));
        let path = Path::new(&directory).join(format!("{name}.png"));
        std::fs::write(path, from_base64(picture["data"].as_str().unwrap())).unwrap();
    }
}

fn program(profile: &Path) -> Command {
    // Chromium reads the protocol from descriptor 3 and writes it to 4.
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec "$@" 3<&0 4>&1 0</dev/null 1>/dev/null"#, "sh", PROGRAM]);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.args(["--disable-dev-shm-usage", "--remote-debugging-pipe"]);
    // Killed, it leaves its scratch files: there they go with the profile.
    command.env("TMPDIR", profile).arg(format!("--user-data-dir={}", profile.display())).arg("about:blank");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    command
}

fn from_base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let text: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').map(value).collect();
    let groups = text.chunks(4).map(|group| {
        let word = group.iter().fold(0u32, |word, bits| word << 6 | u32::from(*bits)) << (6 * (4 - group.len()));
        (word.to_be_bytes(), group.len())
    });
    groups.flat_map(|(bytes, length)| bytes[1..length].to_vec()).collect()
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.child.wait();
        // Its children close their files a moment later.
        for _ in 0..200 {
            if !self.profile.exists() || std::fs::remove_dir_all(&self.profile).is_ok() {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}
