//! Planted secrets of every family, and the carriers that hide them.

use super::*;

/// A small generator of numbers: the corpus is the same every time.
pub(super) struct Dice(pub(super) u64);

pub(super) const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
pub(super) const HEX: &str = "0123456789abcdef";
pub(super) const CAPITAL: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
pub(super) const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
pub(super) const URL: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
pub(super) const B64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
pub(super) const WILD: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-._~%@^#";

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    pub(super) fn word(&mut self, alphabet: &str, length: usize) -> String {
        (0..length).map(|_| alphabet.as_bytes()[self.roll(alphabet.len())] as char).collect()
    }
}

/// Secrets that show by themselves.
pub(super) fn shaped(dice: &mut Dice) -> Vec<(&'static str, String)> {
    let mut made = Vec::new();
    let mut add = |family, prefix: &str, alphabet: &str, length: usize, dice: &mut Dice| {
        made.push((family, format!("{prefix}{}", dice.word(alphabet, length))));
    };
    add("hf", "hf_", ALNUM, 34, dice);
    add("hf letters", "hf_", &ALNUM[..52], 34, dice);
    add("hf org", "api_org_", ALNUM, 34, dice);
    add("openai", "sk-", ALNUM, 48, dice);
    add("openai project", "sk-proj-", URL, 120, dice);
    add("openai service", "sk-svcacct-", URL, 120, dice);
    add("anthropic", "sk-ant-api03-", URL, 93, dice);
    add("openrouter", "sk-or-v1-", HEX, 64, dice);
    for prefix in ["ghp_", "gho_", "ghu_", "ghs_", "ghr_"] {
        add("github", prefix, ALNUM, 36, dice);
    }
    add("github pat", "github_pat_", ALNUM, 82, dice);
    for prefix in ["AKIA", "ASIA"] {
        add("aws id", prefix, CAPITAL, 16, dice);
    }
    add("google", "AIza", URL, 35, dice);
    add("google oauth", "ya29.", URL, 100, dice);
    add("google client", "GOCSPX-", URL, 28, dice);
    add("gitlab", "glpat-", URL, 20, dice);
    add("gitlab runner", "glrt-", URL, 20, dice);
    add("stripe", "sk_live_", ALNUM, 24, dice);
    add("stripe restricted", "rk_test_", ALNUM, 24, dice);
    add("npm", "npm_", ALNUM, 36, dice);
    add("pypi", "pypi-AgEIcHlwaS5vcmc", URL, 150, dice);
    add("sendgrid", "SG.", ALNUM, 22, dice);
    add("groq", "gsk_", ALNUM, 52, dice);
    add("gitlab registration", "GR1348941", URL, 20, dice);
    add("atlassian", "ATATT3", URL, 180, dice);
    add("pulumi", "pul-", HEX, 40, dice);
    add("doppler", "dp.pt.", ALNUM, 43, dice);
    add("heroku", "HRKU-AA", URL, 58, dice);
    add("langsmith", "lsv2_pt_", HEX, 32, dice);
    add("together", "tgp_v1_", URL, 43, dice);
    add("octopus", "API-", CAPITAL, 26, dice);
    add("sonar", "squ_", HEX, 40, dice);
    add("wandb", "wandb_v1_", ALNUM, 77, dice);
    add("docker", "dckr_pat_", URL, 27, dice);
    add("shopify", "shpat_", HEX, 32, dice);
    add("digitalocean", "dop_v1_", HEX, 64, dice);
    made.push((
        "slack",
        format!("xoxb-{}-{}-{}", dice.word("0123456789", 12), dice.word("0123456789", 12), dice.word(ALNUM, 24)),
    ));
    let digits: Vec<String> = (0..3).map(|_| dice.word("0123456789", 12)).collect();
    made.push(("slack user", format!("xoxp-{}-{}", digits.join("-"), dice.word(HEX, 32))));
    made.push((
        "slack app",
        format!("xapp-1-A{}-{}-{}", dice.word(CAPITAL, 10), dice.word("0123456789", 13), dice.word(HEX, 64)),
    ));
    let head = format!("eyJhbGciOiJIUzI1NiIsInR5cCI6{}", dice.word(URL, 12));
    made.push(("jwt", format!("{head}.eyJ{}.{}", dice.word(URL, 60), dice.word(URL, 43))));
    made.push((
        "github jwt",
        format!(
            "ghs_{}_eyJ{}.eyJ{}.{}",
            dice.word("0123456789", 8),
            dice.word(URL, 30),
            dice.word(URL, 60),
            dice.word(URL, 43)
        ),
    ));
    made.retain(|(_, secret)| secret.bytes().any(|byte| byte.is_ascii_digit()) || secret.starts_with("hf_"));
    made
}

/// Where a secret that shows by itself may stand.
pub(super) fn carriers(secret: &str) -> Vec<(&'static str, String)> {
    let json = format!(r#"{{"model":"m","note":"{secret}","n":1}}"#);
    let nested = json.replace('"', "\\\"");
    let twice = nested.replace('\\', "\\\\").replace('"', "\\\"");
    let all = |escape: fn(u8) -> String| secret.bytes().map(escape).collect::<String>();
    vec![
        ("header", format!("X-Custom-Header: {secret}")),
        ("bearer", format!("authorization: Bearer {secret}")),
        ("query", format!("GET /v1/models?page=1&k={secret}&z=2 HTTP/1.1")),
        ("form", format!("a=1&field={secret}&b=2")),
        ("json", json),
        ("json in json", format!(r#"{{"time":"t","message":"upstream said {nested}"}}"#)),
        ("json in json in json", format!(r#"{{"message":"{twice}"}}"#)),
        ("yaml", format!("  upstream_key: {secret}")),
        (
            "multipart",
            format!("--x\\r\\nContent-Disposition: form-data; name=\\\"f\\\"\\r\\n\\r\\n{secret}\\r\\n--x--"),
        ),
        (
            "stack trace",
            format!("  File \"app.py\", line 3, in call\\n    client('{secret}')\\nValueError: bad key {secret}"),
        ),
        (
            "upstream error",
            format!("401 Unauthorized: Incorrect API key provided: {secret}. You can find your key on the page."),
        ),
        ("sse", format!(r#"data: {{"choices":[{{"delta":{{"content":"it is {secret}"}}}}]}}"#)),
        ("userinfo", format!("cloning https://{secret}@example.com/x.git")),
        ("userinfo password", format!("postgres://app:{secret}@db:5432/x?sslmode=require")),
        ("shell", format!("curl -H 'X-Key: {secret}' https://example.com")),
        ("export", format!("export SOME_NAME={secret}; ./run")),
        ("backticks", format!("use `{secret}`, please")),
        ("sentence", format!("The key was {secret}.")),
        ("parentheses", format!("call({secret})")),
        ("debug", format!("Config {{ key: Some(\"{secret}\"), n: 3 }}")),
        ("csv", format!("1,2,{secret},4")),
        ("escaped newline", format!("one\\n{secret}\\ntwo")),
        ("percent", format!("/x?u={}", all(|byte| format!("%{byte:02x}")))),
        ("percent twice", format!("/x?u={}", all(|byte| format!("%25{byte:02X}")))),
        ("unicode escapes", format!(r#"{{"x":"{}"}}"#, all(|byte| format!("\\u{byte:04x}")))),
        ("first letter escaped", format!(r#"{{"x":"\u{:04x}{}"}}"#, secret.as_bytes()[0], &secret[1..])),
        ("html", format!("<td>{secret}</td> key=&quot;{secret}&quot;")),
    ]
}

/// Secrets that show by their name.
pub(super) fn named(secret: &str, name: &str) -> Vec<(&'static str, String)> {
    let json = format!(r#"{{"user":"bob","{name}":"{secret}","n":1}}"#);
    let nested = json.replace('"', "\\\"");
    vec![
        ("json", json.clone()),
        ("json spaced", json.replace("\":\"", "\": \"")),
        ("json in json", format!(r#"{{"message":"body {nested}"}}"#)),
        ("json number twice", format!(r#"{{"message":"{}"}}"#, nested.replace('\\', "\\\\").replace('"', "\\\""))),
        ("python", format!("{{'user': 'bob', '{name}': '{secret}'}}")),
        ("kwargs", format!("connect(user='bob', {name}='{secret}')")),
        ("assignment", format!("{name} = \"{secret}\"")),
        ("env", format!("{}={secret}", name.to_uppercase())),
        ("env quoted", format!("export {}=\"{secret}\"", name.to_uppercase())),
        ("logfmt", format!("level=info user=bob {name}={secret} n=1")),
        ("yaml", format!("{name}: {secret}")),
        ("yaml nested", format!("db:\\n  host: x\\n  {name}: {secret}\\n  port: 1")),
        ("flag", format!("./run --{} {secret} --verbose", name.replace('_', "-"))),
        ("flag equals", format!("./run --{}={secret} --verbose", name.replace('_', "-"))),
        ("multipart", format!("Content-Disposition: form-data; name=\\\"{name}\\\"\\r\\n\\r\\n{secret}\\r\\n--x--")),
        ("xml", format!("<{name}>{secret}</{name}>")),
        ("list of entries", format!(r#"[{{"name":"{name}","value":"{secret}"}}]"#)),
        ("rust debug", format!("Config {{ {name}: Some(\"{secret}\"), n: 3 }}")),
        ("camel", format!(r#"{{"my{}{}":"{secret}"}}"#, name[..1].to_uppercase(), &name[1..])),
        ("escaped name", format!(r#"{{"\u{:04x}{}":"{secret}"}}"#, name.as_bytes()[0], &name[1..])),
        ("pair", format!(r#"headers [("{name}", "{secret}")]"#)),
    ]
}

/// True when eight characters of the secret in a row stand in the text.
pub(super) fn leaks(text: &[u8], secret: &str) -> bool {
    secret.as_bytes().windows(8).any(|window| memchr::memmem::find(text, window).is_some())
}

/// True when the text decodes to a leak.
pub(super) fn leaks_anyhow(text: &[u8], secret: &str) -> bool {
    let mut shadow = text.to_vec();
    for _ in 0..4 {
        if leaks(&shadow, secret) {
            return true;
        }
        let Some(next) = decode::Shadow::of_all(&shadow) else {
            return false;
        };
        shadow = next.text;
    }
    false
}

pub(super) fn check(redactor: &Redactor, what: &str, line: &str, secret: &str, failures: &mut Vec<String>) {
    let out = redactor.line(line.as_bytes());
    if leaks_anyhow(&out, secret) {
        failures.push(format!("{what}\n    {line}\n    {}", String::from_utf8_lossy(&out)));
    }
}

pub(super) fn assert_none(failures: &[String], total: usize) {
    let shown: Vec<&str> = failures.iter().take(40).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} of {total} leak:\n{}", failures.len(), shown.join("\n"));
}
