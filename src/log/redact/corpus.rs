//! Planted secrets of every family in every carrier are cut out, and lines that have none stay as they are.

use super::samples::*;
use super::*;

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
            ("session cookie", format!("sessionid={cookie}; Path=/"), &cookie),
            ("session of a form", format!("got session_id={cookie}"), &cookie),
            ("session of a framework", format!("lang=de;laravel_session={cookie}"), &cookie),
            ("session id", format!("sid={cookie}"), &cookie),
            ("a framework's hash", format!("pbkdf2_sha256$600000$aB3dE5gH7jK9${token}="), &token),
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
        "ssh bob@10.0.0.7 (pw: {})",
        "id/pw: bob/{}",
        "the password of bob is {}",
        "password for bob: {}",
        "a temporary password is generated for root@localhost: {}",
        "my api key is {}",
        "your passcode is {}",
        "new passwords: {}",
        "PASSWORD({})",
        "password -> {}",
        "password → {}",
        "Password ............ {}",
        "**Password:** {}",
        "**Password**: `{}`",
        "| password | {} |",
        "<b>Password:</b> {}",
        "<tr><td>password</td><td>{}</td></tr>",
        "Passwort: {}",
        "Mot de passe : {}",
        "{\"contraseña\":\"{}\"}",
        "Пароль: {}",
        "密码：{}",
        "パスワード={}",
        "비밀번호: {}",
        "pass\u{200b}word={}",
        "password＝{}",
        "\\042password\\042:\\042{}\\042",
        "\\u{70}assword: {}",
        "setPassword(\"{}\")",
        "builder.api_key(\"{}\")",
        "Some(Password(\"{}\"))",
        "NSString *password = @\"{}\";",
        "std::string apiKey{\"{}\"};",
        "password <- \"{}\"",
        "if password == \"{}\"",
        "[\"password\"] => string(15) \"{}\"",
        "Config(password=Optional[{}])",
        "token { string_value: \"{}\" }",
        "{\"Name\":\"API_KEY\",\"Value\":\"{}\"}",
        "new NetworkCredential(\"bob\", \"{}\")",
        "requests.get(url, auth=('bob', '{}'))",
        "smtp.login(\"bob@example.com\", \"{}\")",
        "INSERT INTO users (name, password) VALUES ('bob', '{}')",
        "{\"sql\":\"INSERT INTO u(`id`, `password`) VALUES (1, \\\"{}\\\")\"}",
        "CREATE LOGIN bob WITH PASSWORD = N'{}'",
        "SET PASSWORD FOR bob = PASSWORD('{}')",
        "GRANT ALL ON *.* TO bob IDENTIFIED WITH mysql_native_password BY '{}'",
        "bob:{}@tcp(db:3306)/x?parseTime=true",
        "jdbc:oracle:thin:scott/{}@//db:1521/x",
        "db.example.com:5432:app:bob:{}",
        "psexec \\\\10.0.0.1 -u Administrator -p {} cmd",
        "sqlcmd -S db -U sa -P {} -Q x",
        "ldapsearch -x -D cn=admin -w '{}'",
        "plink -ssh bob@x -pw {}",
        "smbclient //srv/share -U bob%{}",
        "net use \\\\srv\\share /user:bob {}",
        "keytool -list -storepass {}",
        "cargo login {}",
        "vault login {}",
        "ConvertTo-SecureString -String \"{}\" -AsPlainText",
        "enable password 7 {}",
        "snmp-server community {} RW",
        "Authorization: GenieKey {}",
        "Authorization: Hawk id=\"x\", ts=\"1\", mac=\"{}\"",
        "client-key-data: {}",
        "PASS - {}",
        "if (password == {})",
        "{\"value\":\"{}\",\"name\":\"password\"}",
        "{\"value\": \"{}\", \"key\": \"DB_PASSWORD\"}",
        "{\"m\":\"{\\\"value\\\":\\\"{}\\\",\\\"name\\\":\\\"password\\\"}\"}",
        "{\"n\":\"password\",\"v\":\"{}\"}",
        "<input value=\"{}\" type=\"password\">",
        "<input type=\"password\" value=\"{}\">",
        "<meta name=\"client_secret\" content=\"{}\">",
        "<password kind=\"plain\">{}</password>",
        "env:\\n- name: DB_PASSWORD\\n  value: \"{}\"",
        "{password,\"{}\"}",
        "{password, <<\"{}\">>}",
        "(password . \"{}\")",
        "buildConfigField 'String', 'API_KEY', '\"{}\"'",
        "password set to {}",
        "password changed from {} to another",
        "echo bob:{} | chpasswd",
        "echo \"bob:{}\" | sudo chpasswd",
        "echo '{}' | sudo -S ls",
        "AUTH {}",
        "10.0.0.1:6379> AUTH default {}",
        "PRIVMSG NickServ :IDENTIFY {}",
        "curl -b session={} https://example.com",
        "curl --user bob:'{}' https://example.com",
        "curl --user \"bob\":\"{}\" https://example.com",
        "New-Object PSCredential(\"bob\", \"{}\")",
        "db.auth(\"bob\", \"{}\")",
        "rabbitmqctl add_user bob {}",
        "WIFI:T:WPA;S:home;P:{};;",
        "otpauth://totp/x:bob?secret={}&issuer=x",
        "curl -u \"{}:\" https://example.com",
        "API_TOKEN :::= \"{}\"",
        "# {} is the password",
        "<property name=\"password\">{}</property>",
        "<entry key=\"db.password\">{}</entry>",
        "<string name=\\\"api_key\\\">{}</string>",
        "<secret><![CDATA[{}]]></secret>",
        "let password = r#\"{}\"#;",
        "REDISCLI_AUTH={}",
        "X-JFrog-Art-Api: {}",
        "\u{1b}[1;31mpassword={}\u{1b}[0m",
        "password => q{{}},",
        "password = %q({})",
        "password = [[{}]]",
        "db_password=<{}>",
        "password[{}]",
        "password{{}}",
        "password::{}",
        "::set-output name=password::{}",
        "password|{}",
        "password      | {}",
        "`password`=`{}`",
        "password: &anchor {}",
        "password: !!str {}",
        "SET password TO '{}'",
        "  ~ password = \"before\" -> \"{}\"",
        "<ns:Password Type=\"x\">{}</ns:Password>",
        "rawHeaders: [ 'Host', 'h', 'X-Password', '{}' ]",
        "E       AssertionError: assert '{}' == cfg.password",
        "dbPassword,{}d3f2a1,",
        "your access_token is: {}",
        "password='it''s {}'",
        "smtp_pass: {}",
        "the password is \"{}\"",
        "비번:{}",
        "암호: {}",
        "패스워드: {}",
    ] {
        check(&redactor, form, &form.replace("{}", secret), secret, &mut failures);
    }
    // Without a digit: what stands before them says enough.
    for form in [
        "smtp_pass: '{}'",
        "USER_PASS={}",
        "the default password is '{}'",
        "\"password\": \"{}\"",
        "    [user_pass] => {}",
        "{:user \"bob\" :db-password \"{}\"}",
    ] {
        check(&redactor, form, &form.replace("{}", "sunflower"), "sunflower", &mut failures);
    }
    check(&redactor, "chosen", "\"pwd\": \"thisismypassword\"", "thisismypassword", &mut failures);
    check(&redactor, "braces", "\"apikey\": \"{{h}o)p${e]nob\"", "{{h}o)p${e]nob", &mut failures);
    let phrase = "correct horse battery staple";
    check(&redactor, "phrase", &format!("password: {phrase}"), phrase, &mut failures);
    check(&redactor, "quoted phrase", &format!("{{\"password\":\"{phrase}\"}}"), phrase, &mut failures);
    assert_none(&failures, 160);
}

#[test]
fn escaped_signs_are_undone_wherever_they_stand() {
    let (redactor, mut failures) = (Redactor::new(&[]).unwrap(), Vec::new());
    let secret = "Zq8vN3kL0rT2xR7tB5mY";
    for form in [
        r#"{"m":"{\u0022auths\u0022:{\u0022ghcr.io\u0022:{\u0022auth\u0022:\u0022{}==\u0022}}}"}"#,
        "GET /go?to=https%3A%2F%2Fmystore.blob.example.net%2Ff%3Fsr%3Db%26sig%3D{}%253D",
        "GET /go?to=https%3A%2F%2Fapp.example.com%2Fcb%3Fcode%3D{}%26state%3Dxyz",
        "h=%7BSSHA%7D{}x6nNrXfMQq6hFJ4z8",
        "cmd=curl%20-u%20bob:{}%20host",
        "q=CREATE%20USER%20bob%20IDENTIFIED%20BY%20%27{}%27",
        "your%20backup%20code%3A%20{}",
        "smtp.login%28%22u%22,%22{}%22%29",
        "bob:{}@tcp%28db%29",
        "%22connect%2Esid%22%3A%22{}%22",
        "p%61ssword%3D%22correct horse {} staple%22",
        "%22%E5%AF%86%E7%A0%81%22%3A%22correct {} 77%22",
        "x %22MTk4NjIyNDgzNDcxOTI1MjQ4.Cl2FMQ.{}7R7y8q9%22",
    ] {
        check(&redactor, form, &form.replace("{}", secret), secret, &mut failures);
    }
    let words = "words of it ".repeat(20);
    for form in [
        format!("Authorization%3A Digest username=\"bob\", realm=\"{words}\", response=\"{secret}\""),
        format!(
            "&quot;secret&quot;: {{&quot;value&quot;: &quot;{secret}&quot;, &quot;about&quot;: &quot;{words}&quot;}}"
        ),
        format!("Cookie%3A {}s={secret}", "theme=dark; ".repeat(30)),
        format!("&quot;secret&quot;: &quot;{}{secret}&quot;", "correct horse battery staple ".repeat(12)),
    ] {
        check(&redactor, "long", &form, secret, &mut failures);
    }
    assert_none(&failures, 17);
}

#[test]
fn tokens_of_exact_parts_are_cut_out_whole() {
    let (redactor, mut dice) = (Redactor::new(&[]).unwrap(), Dice(0x51de_ca5e_0f0e_11e5));
    let mut failures = Vec::new();
    let small = &ALNUM[26..];
    for _ in 0..40 {
        for (maker, secret) in [
            ("mapbox", format!("pk.{}7.{}", dice.word(small, 59), dice.word(small, 22))),
            ("retell", format!("key_{}7", dice.word(HEX, 27))),
            ("telnyx", format!("KEY{}7a", dice.word(URL, 54))),
            ("square", format!("sq0{}-{}7", dice.word(LOWER, 3), dice.word(ALNUM, 21))),
            ("twitter", format!("{}{}%3D{}", "A".repeat(21), dice.word(ALNUM, 40), dice.word(ALNUM, 44))),
            ("slack", format!("xoxd-{}\\/{}", dice.word(B64, 30), dice.word(B64, 30))),
        ] {
            for line in [format!("upstream rejected {secret} (401)"), format!("{{\"x\":\"{secret}\",\"n\":1}}")] {
                check(&redactor, maker, &line, &secret, &mut failures);
            }
        }
    }
    assert_none(&failures, 40 * 12);
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
        ("<key>dbPassword</key>\n<string>hunter2-and-more</string>\nkept\n", "hunter2-and-more"),
        ("user,password,role\nbob,hunter2-and-more,admin\nann,another-4-word,kept\n", "hunter2-and-more"),
        ("user,password,role\nbob,hunter2-and-more,admin\nann,another-4-word,kept\n", "another-4-word"),
        (
            "variable \"API_TOKEN\" {\n  type = string\n  default = \"23d968ff-10b9-4e6f\"\n}\nkept\n",
            "23d968ff-10b9-4e6f",
        ),
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
fn escapes_elsewhere_in_a_long_line_hide_no_secret() {
    const WORDS: &str = "some words of prose that nobody has to hide, ";
    let (redactor, mut dice) = (Redactor::new(&[]).unwrap(), Dice(0x0ddb_1a5e_5bad_5eed));
    let (mut failures, mut total) = (Vec::new(), 0);
    let mut lines: Vec<(String, String)> = Vec::new();
    for (_, secret) in shaped(&mut dice).into_iter().step_by(3) {
        lines.extend(carriers(&secret).into_iter().map(|(_, line)| (secret.clone(), line)));
    }
    for name in ["password", "access_token"] {
        let secret = format!("a7{}", dice.word(ALNUM, 22));
        lines.extend(named(&secret, name).into_iter().map(|(_, line)| (secret.clone(), line)));
    }
    for (secret, line) in &lines {
        let (before, after) = (dice.roll(40), dice.roll(40));
        let surrounded = |escape: &str| {
            let prose = |words: usize| format!("{escape}{}", WORDS.repeat(words));
            format!("{}{}{line} {}{}", prose(before), prose(1), prose(after), prose(2))
        };
        for escape in ["", "&lt;", "%41", "\\u0020", "\u{a0}"] {
            total += 1;
            check(&redactor, &format!("{before} {escape} {after}"), &surrounded(escape), secret, &mut failures);
        }
    }
    assert!(total > 2_000, "{total}");
    assert_none(&failures, total);
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
fn a_cookie_in_base64_ends_where_its_text_ends() {
    let redactor = Redactor::new(&[]).unwrap();
    for cookie in ["s=YWJjZGVmZ2g=", "s=YWJjZGVmZ2g"] {
        let out = redactor.line(format!(r#"{{"m":"Cookie: {cookie}","n":1,"z":"kept"}}"#).as_bytes()).into_owned();
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with(r#"","n":1,"z":"kept"}"#), "{text}");
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
