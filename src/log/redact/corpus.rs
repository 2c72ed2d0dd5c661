//! A generator of planted secrets, every family in every carrier, and of lines that have none.

use super::*;

/// A small generator of numbers: the corpus is the same every time.
struct Dice(u64);

const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
const HEX: &str = "0123456789abcdef";
const CAPITAL: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const URL: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const B64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const WILD: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-._~%@^#";

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn word(&mut self, alphabet: &str, length: usize) -> String {
        (0..length).map(|_| alphabet.as_bytes()[self.roll(alphabet.len())] as char).collect()
    }
}

/// Secrets that show by themselves.
fn shaped(dice: &mut Dice) -> Vec<(&'static str, String)> {
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
fn carriers(secret: &str) -> Vec<(&'static str, String)> {
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
fn named(secret: &str, name: &str) -> Vec<(&'static str, String)> {
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
fn leaks(text: &[u8], secret: &str) -> bool {
    secret.as_bytes().windows(8).any(|window| memchr::memmem::find(text, window).is_some())
}

/// True when the text decodes to a leak.
fn leaks_anyhow(text: &[u8], secret: &str) -> bool {
    let mut shadow = text.to_vec();
    for _ in 0..4 {
        if leaks(&shadow, secret) {
            return true;
        }
        let Some(next) = decode::Shadow::of(&shadow) else { return false };
        shadow = next.text;
    }
    false
}

fn check(redactor: &Redactor, what: &str, line: &str, secret: &str, failures: &mut Vec<String>) {
    let out = redactor.line(line.as_bytes());
    if leaks_anyhow(&out, secret) {
        failures.push(format!("{what}\n    {line}\n    {}", String::from_utf8_lossy(&out)));
    }
}

fn assert_none(failures: &[String], total: usize) {
    let shown: Vec<&str> = failures.iter().take(40).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} of {total} leak:\n{}", failures.len(), shown.join("\n"));
}

#[test]
fn shaped_secrets_leak_from_no_carrier() {
    let (redactor, mut dice) = (Redactor::new(&[]).unwrap(), Dice(0x9e37_79b9_7f4a_7c15));
    let (mut failures, mut total) = (Vec::new(), 0);
    for _ in 0..12 {
        for (family, secret) in shaped(&mut dice) {
            for (carrier, line) in carriers(&secret) {
                total += 1;
                check(&redactor, &format!("{family} in {carrier}"), &line, &secret, &mut failures);
            }
        }
    }
    assert!(total > 9_000);
    assert_none(&failures, total);
}

#[test]
fn named_secrets_leak_from_no_carrier() {
    let (redactor, mut dice) = (Redactor::new(&[]).unwrap(), Dice(0x1234_5678_9abc_def1));
    let (mut failures, mut total) = (Vec::new(), 0);
    let names = [
        "password",
        "passwd",
        "pwd",
        "secret",
        "token",
        "api_key",
        "client_secret",
        "private_key",
        "db_password",
        "access_token",
        "aws_secret_access_key",
    ];
    for _ in 0..12 {
        for name in names {
            for (alphabet, length) in [(ALNUM, 16), (HEX, 32), (B64, 40), (URL, 24), (WILD, 20)] {
                let secret = format!("{}7{}", dice.word(&ALNUM[..52], 1), dice.word(alphabet, length));
                for (carrier, line) in named(&secret, name) {
                    total += 1;
                    check(&redactor, &format!("{name} in {carrier}"), &line, &secret, &mut failures);
                }
            }
        }
    }
    assert!(total > 10_000);
    assert_none(&failures, total);
}

#[test]
fn headers_leak_no_credentials() {
    let (redactor, mut dice, mut failures) = (Redactor::new(&[]).unwrap(), Dice(77), Vec::new());
    for _ in 0..50 {
        let pair = format!("{}:{}", dice.word(LOWER, 6), dice.word(ALNUM, 12));
        let basic = encode64(pair.as_bytes());
        let token = dice.word(HEX, 40);
        let cookie = dice.word(URL, 30);
        for (what, line, secret) in [
            ("basic", format!("Authorization: Basic {basic}"), &basic),
            ("basic alone", format!("sent BASIC {basic} to it"), &basic),
            ("basic json", format!(r#"{{"headers":{{"authorization":"Basic {basic}"}}}}"#), &basic),
            ("basic percent", format!("h=Basic%20{basic}"), &basic),
            ("token", format!("Authorization: Token {token}"), &token),
            ("token alone", format!("using token {token} now"), &token),
            ("bearer odd", format!("bEaReR   {token}"), &token),
            ("bearer plus", format!("auth=Bearer+{token}&x=1"), &token),
            ("bearer nested", format!(r#"{{"m":"{{\"Authorization\":\"Bearer {token}\"}}"}}"#), &token),
            ("plain", format!("authorization: {token}"), &token),
            ("digest", format!("Authorization: Digest username=\"bob\", response=\"{token}\""), &token),
            (
                "signed",
                format!(
                    "Authorization: AWS4-HMAC-SHA256 Credential=x/20260101/r/s/aws4_request, SignedHeaders=host, Signature={token}"
                ),
                &token,
            ),
            ("cookie", format!("Cookie: theme=dark; session={cookie}; lang=de"), &cookie),
            ("set-cookie", format!("set-cookie: sid={cookie}; Path=/; HttpOnly"), &cookie),
            ("cookie json", format!(r#"{{"cookie":"theme=dark; session={cookie}"}}"#), &cookie),
            (
                "raw headers",
                format!("[(b'host', b'x'), (b'authorization', b'{token}'), (b'cookie', b'a={cookie}')]"),
                &token,
            ),
            (
                "raw cookies",
                format!("[(b'host', b'x'), (b'authorization', b'{token}'), (b'cookie', b'a={cookie}')]"),
                &cookie,
            ),
            ("api key", format!("x-api-key: {token}"), &token),
            ("curl user", format!("curl -u bob:{cookie} https://example.com"), &cookie),
            ("signed url", format!("https://a.example/x?sp=r&sig={cookie}%3D&se=1"), &cookie),
            ("s3 url", format!("https://b.example/k?X-Amz-Date=1&X-Amz-Signature={token}"), &token),
            ("query key", format!("/v1/models?key={cookie}"), &cookie),
        ] {
            check(&redactor, what, &line, secret, &mut failures);
        }
    }
    assert_none(&failures, 1_100);
}

#[test]
fn secrets_leak_from_no_form_that_programs_and_people_use() {
    let (redactor, mut failures) = (Redactor::new(&[]).unwrap(), Vec::new());
    let secret = "S3cretPass99xyz";
    for form in [
        "jdbc:mysql://localhost:3306/db?user=root&password={}",
        "Server=db;User Id=sa;Password={};Encrypt=true",
        "AccountName=x;AccountKey={};EndpointSuffix=core",
        "machine api.example.com login bob password {}",
        "PGPASSWORD={} psql -h x",
        "mysql -u root -p{} db",
        "sshpass -p '{}' ssh bob@host",
        "redis-cli -a {} ping",
        "docker login -u bob -p {} registry",
        "curl --user \"bob:{}\" https://example.com",
        "curl -ubob:{} https://example.com",
        "CREATE USER bob IDENTIFIED BY '{}';",
        "ALTER USER bob WITH PASSWORD '{}';",
        "user[password]={}&user[name]=bob",
        "password%5B%5D={}",
        "<input type=\"password\" name=\"password\" value=\"{}\">",
        "<add key=\"ApiToken\" value=\"{}\" />",
        "env: [{name: DB_PASSWORD, value: {}}]",
        "{\"secret\":{\"value\":\"{}\"}}",
        "{\"credentials\":{\"username\":\"bob\",\"pass\":\"{}\"}}",
        "my password is {}",
        "The password was: {}",
        "the secret key: {}",
        "SECRET_KEY_BASE: {}",
        "Authorization:Bearer {}",
        "Authorization=Bearer%20{}",
        "//registry.example.com/:_authToken={}",
        "_auth={}",
    ] {
        check(&redactor, form, &form.replace("{}", secret), secret, &mut failures);
    }
    let phrase = "correct horse battery staple";
    check(&redactor, "phrase", &format!("password: {phrase}"), phrase, &mut failures);
    check(&redactor, "quoted phrase", &format!("{{\"password\":\"{phrase}\"}}"), phrase, &mut failures);
    assert_none(&failures, 30);
}

fn encode64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let sextet = (bits >> (18 - 6 * at) & 63) as usize;
            out.push(if at <= group.len() { B64.as_bytes()[sextet] as char } else { '=' });
        }
    }
    out
}

#[test]
fn private_keys_are_cut_out_whole_escaped_and_halved() {
    let (redactor, mut dice, mut failures) = (Redactor::new(&[]).unwrap(), Dice(99), Vec::new());
    for kind in ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "] {
        let last = dice.word(B64, 23) + "=";
        let rows: Vec<String> = (0..12).map(|_| dice.word(B64, 64)).chain([last]).collect();
        let (begin, end) = (format!("-----BEGIN {kind}PRIVATE KEY-----"), format!("-----END {kind}PRIVATE KEY-----"));
        let secret = rows.concat();
        for joint in ["\\n", "\\\\n", "\\r\\n", " ", "%0A"] {
            let body = rows.join(joint);
            for line in [
                format!("{{\"key\":\"{begin}{joint}{body}{joint}{end}{joint}\"}}"),
                format!("{{\"key\":\"{begin}{joint}{body}\",\"next\":1}}"),
                format!("{body}{joint}{end}"),
                format!("key is {begin}{joint}{body}"),
            ] {
                check(&redactor, "one line", &line, &secret, &mut failures);
            }
        }
        for prefix in ["", "    ", "2026-01-02 stderr: "] {
            let mut lines = vec![format!("{prefix}{begin}")];
            lines.extend(rows.iter().map(|row| format!("{prefix}{row}")));
            let text = lines.join("\n");
            let mut out = Vec::new();
            filter(&redactor, text.as_bytes(), &mut out).unwrap();
            if rows.iter().any(|row| leaks(&out, row)) {
                failures.push(String::from_utf8_lossy(&out).into_owned());
            }
        }
    }
    assert_none(&failures, 115);
}

#[test]
fn lines_of_a_stream_keep_their_secrets_together() {
    let redactor = Redactor::new(&[]).unwrap();
    for (text, secret) in [
        (
            "Content-Disposition: form-data; name=\"password\"\r\nContent-Type: text/plain\r\n\r\nhunter2-and-more\r\n--x\r\nkept\r\n",
            "hunter2-and-more",
        ),
        (
            "db:\n  password: |\n    correct horse battery\n    staple nineteen\n  port: 5432\nkept\n",
            "correct horse battery",
        ),
        ("db:\n  password: |\n    correct horse battery\n    staple nineteen\n  port: 5432\nkept\n", "staple nineteen"),
    ] {
        let mut out = Vec::new();
        filter(&redactor, text.as_bytes(), &mut out).unwrap();
        assert!(!leaks(&out, secret), "{}", String::from_utf8_lossy(&out));
        assert!(memchr::memmem::find(&out, b"kept").is_some());
        assert_eq!(memchr::memchr_iter(b'\n', &out).count(), memchr::memchr_iter(b'\n', text.as_bytes()).count());
    }
}

/// Lines as programs, people and proxies write them, none with a secret.
const ORDINARY: &str = include_str!("ordinary.txt");

#[test]
fn ordinary_lines_stay_as_they_are() {
    let redactor = Redactor::new(&[]).unwrap();
    let mut altered = Vec::new();
    for line in ORDINARY.lines() {
        if let Cow::Owned(out) = redactor.line(line.as_bytes()) {
            altered.push(format!("{line}\n    {}", String::from_utf8_lossy(&out)));
        }
    }
    assert!(altered.is_empty(), "{} altered:\n{}", altered.len(), altered.join("\n"));
}

#[test]
fn generated_ids_hashes_and_pictures_stay() {
    let (redactor, mut dice) = (Redactor::new(&[]).unwrap(), Dice(4242));
    let mut altered = Vec::new();
    for _ in 0..2_000 {
        let hash = dice.word(HEX, 40);
        let uuid =
            format!("{}-{}-{}-{}-{}", &hash[..8], &hash[8..12], &hash[12..16], &hash[16..20], dice.word(HEX, 12));
        let picture = dice.word(B64, 400);
        for line in [
            format!("commit {hash}"),
            format!("{{\"request_id\":\"{uuid}\",\"status\":200,\"completion_tokens\":{}}}", dice.roll(999)),
            format!("data:image/png;base64,{picture}"),
            format!("sha256:{}", dice.word(HEX, 64)),
            format!("session {uuid} took {} ms, {} tokens", dice.roll(999), dice.roll(999)),
        ] {
            if let Cow::Owned(out) = redactor.line(line.as_bytes()) {
                altered.push(format!("{line}\n    {}", String::from_utf8_lossy(&out)));
            }
        }
    }
    assert!(
        altered.len() <= 10,
        "{} of 10000 altered:\n{}",
        altered.len(),
        altered[..altered.len().min(10)].join("\n")
    );
}

#[test]
fn a_secret_between_a_name_and_its_value_is_found_too() {
    let redactor = Redactor::new(&[]).unwrap();
    let secret = "hf_QwErTyUiOpAsDfGhJkLzXcVbNmQ7Z4K1P9W";
    for line in [
        format!("name: DB_PASSWORD\n{secret} x\r\n\r\nvalue123"),
        format!("name=\\\"password\\\"; filename={secret}\\r\\n\\r\\nvalue123\\r\\n"),
    ] {
        assert!(!leaks(&redactor.line(line.as_bytes()), secret), "{line}");
    }
}

#[test]
fn json_stays_json() {
    let redactor = Redactor::new(&[]).unwrap();
    for line in [
        r#"{"a":1,"password":12345678,"b":true}"#,
        r#"{"m":"x {\"password\":12345678,\"b\":1}","c":2}"#,
        r#"{"password":["a-long-one","b-long-one"],"c":2}"#,
        r#"{"m":"token=abc123def456ghi\nnext","c":2}"#,
        r#"{"m":"Authorization: Bearer abc123def456ghi","c":2}"#,
        r#"{"m":"password=\"a\\\"b12345678\" and more","c":2}"#,
        r#"{"m":"cookie: a=b1234567; c=d","c":2}"#,
    ] {
        let out = redactor.line(line.as_bytes());
        assert!(matches!(out, Cow::Owned(_)), "untouched: {line}");
        let parsed: Result<serde_json::Value, _> = serde_json::from_slice(&out);
        assert!(parsed.is_ok(), "{} -> {}", line, String::from_utf8_lossy(&out));
        assert!(parsed.unwrap()["c"].as_u64().is_none_or(|c| c == 2));
    }
}

#[test]
fn the_operators_patterns_count_too() {
    let redactor = Redactor::new(&["ACME-[0-9]{6}".to_owned()]).unwrap();
    assert_eq!(redactor.line(b"id ACME-123456 here").as_ref(), b"id [REDACTED] here");
    assert!(Redactor::new(&["(".to_owned()]).is_err());
    assert!(Redactor::new(&["x*".to_owned()]).is_err());
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_redacted_without_panic_and_without_growth(bytes: Vec<u8>, words in proptest::collection::vec(0usize..400, 0..20)) {
        let redactor = shared();
        let (names, _) = literals::all();
        let mut line = bytes;
        for word in words {
            line.extend_from_slice(names[word % names.len()].as_bytes());
            line.extend_from_slice([&b"="[..], b"\": \"", b" ", b"%22:", b"\\\":\\\"", b"\\u003d", b"x1"][word % 7]);
        }
        let mut trail = Trail::default();
        let once = redactor.line_after(&line, &mut trail).into_owned();
        proptest::prop_assert!(once.len() <= line.len() * 14 + 64);
        redactor.line_after(&line, &mut trail);
    }

    #[test]
    fn a_planted_secret_leaks_from_no_surroundings(before in "[ -~]{0,40}", after in "[ -~]{0,40}", seed in 1u64..u64::MAX) {
        let mut dice = Dice(seed);
        let secrets = shaped(&mut dice);
        let (family, secret) = &secrets[dice.roll(secrets.len())];
        let line = format!("{before} {secret} {after}");
        let out = shared().line(line.as_bytes());
        proptest::prop_assert!(!leaks(&out, secret), "{} {} -> {}", family, line, String::from_utf8_lossy(&out));
    }
}

fn shared() -> &'static Redactor {
    static SHARED: std::sync::OnceLock<Redactor> = std::sync::OnceLock::new();
    SHARED.get_or_init(|| Redactor::new(&[]).unwrap())
}
