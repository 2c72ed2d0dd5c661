//! Every literal that may announce a secret, and who looks at what stands around it.

use super::Finds;
use super::commands;
use super::keys::{self, Found};
use super::makers::{SHAPES, Shape};
use super::pem::{self, Pem};
use super::schemes;
use super::text::{self, Text};
use super::tokens::{self, EXACT, INFIXES, Memo};
use super::values::Strength;

/// Who looks at a hit.
#[derive(Clone, Copy)]
pub(super) enum Family {
    Shape(&'static Shape),
    Infix(&'static tokens::Infix),
    Exact(&'static [(u16, usize)]),
    Sid,
    Dot,
    Jwt,
    Key(Strength),
    /// A name's end and a scheme: `token=…`, `Token …`.
    Token,
    Bearer,
    Basic,
    Authorization,
    Cookie,
    Query,
    Url,
    UserFlag,
    Foreign(&'static Foreign),
    /// A program and its flag for a password.
    Command(&'static str),
    /// A command whose next word is the secret.
    Next,
    /// A call whose last argument is the secret.
    Arguments,
    /// The end of `user:password@tcp(host)`.
    Dsn,
    /// `host:5432:database:user:password`
    PgPass,
    /// `user/password@host`
    Slash,
    /// `echo user:password | chpasswd`, `echo password | sudo -S …`
    Piped,
    /// A protocol's command at the beginning of a line, whose last word is the secret.
    Protocol,
    /// `curl -b name=value`
    CookieFlag,
    /// `WIFI:T:WPA;S:net;P:password;;`
    Wifi,
    PrivateKey,
}

const STRONG: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "api_key",
    "apikey",
    "api-key",
    "private_key",
    "privatekey",
    "private-key",
    "access_key",
    "accesskey",
    "access-key",
    "secret_key",
    "secretkey",
    "secret-key",
    "account_key",
    "accountkey",
    "signing_key",
    "signingkey",
    "encryption_key",
    "encryptionkey",
    "auth_key",
    "authkey",
    "signing-key",
    "encryption-key",
    "auth-key",
    "master-key",
    "account-key",
    "master_key",
    "masterkey",
    "identified by",
    "secret_key_base",
    "secret key",
    "access key",
    "servicekey",
    "service_key",
    "dbkey",
    "db_key",
    "databasekey",
    "database_key",
    "clientkey",
    "client_key",
    "privkey",
    "priv_key",
    "keypass",
    "dbpass",
    "db_pass",
    "requirepass",
    "masterauth",
    "storepass",
    "key-data",
    "passwords",
    "presharedkey",
    "recovery_code",
    "recovery-code",
    "backup code",
    "contrasena",
    "sonar_login",
    "sonar.login",
    "sonar-login",
];
const WEAK: &[&str] = &[
    "pass",
    "_auth",
    "\"auth",
    "api key",
    "jwt",
    "credential",
    "credentials",
    "creds",
    "passcode",
    "phpsessid",
    "jsessionid",
    "_gitlab_session",
    "asp.net_sessionid",
    "connect.sid",
    "pw",
    "p/w",
    "psk",
    "x-jfrog-art-api",
    "rediscli_auth",
];
/// Passwords as others call them: the part that is looked for, and what must stand before and after it. Few bytes beyond
/// ASCII, for each of them widens the automaton.
const FOREIGN: &[Foreign] = &[
    foreign("", "passwort", ""),
    foreign("", "kennwort", ""),
    foreign("", "contrase", "ña"),
    foreign("", "mot de passe", ""),
    foreign("", "mot_de_passe", ""),
    foreign("", "motdepasse", ""),
    foreign("", "palavra-passe", ""),
    foreign("", "senha", ""),
    foreign("", "wachtwoord", ""),
    foreign("", "hasło", ""),
    foreign("", "haslo", ""),
    foreign("", "heslo", ""),
    foreign("", "jelsz", "ó"),
    foreign("lö", "senord", ""),
    foreign("", "adgangskode", ""),
    foreign("", "salasana", ""),
    foreign("ş", "ifre", ""),
    foreign("", "parola", ""),
    foreign("паро", "ль", ""),
    foreign("密", "码", ""),
    foreign("密", "碼", ""),
    foreign("パスワ", "ード", ""),
    foreign("비밀번", "호", ""),
    foreign("비", "번", ""),
    foreign("암", "호", ""),
    foreign("패스워", "드", ""),
];

/// A name in another language.
pub(super) struct Foreign {
    before: &'static str,
    part: &'static str,
    after: &'static str,
}

const fn foreign(before: &'static str, part: &'static str, after: &'static str) -> Foreign {
    Foreign { before, part, after }
}

impl Foreign {
    fn at(&self, text: &Text<'_>, start: usize, end: usize, memo: &mut Memo) -> Option<Found> {
        let begin = start.checked_sub(self.before.len())?;
        let before = &text[begin..start];
        // Nothing is compared with nothing: a processor may take long for that.
        let same = self.before.is_empty()
            || before == self.before.as_bytes()
            // The first letter may be a capital, which has other bytes.
            || self.before == "паро" && before == "Паро".as_bytes();
        let followed = self.after.is_empty() || text[end..].starts_with(self.after.as_bytes());
        let whole = same && followed && text::part_begins(text, begin);
        if whole { keys::value(text, begin, end + self.after.len(), Strength::Strong, memo) } else { None }
    }
}
/// What follows is secret when it looks it, and the name is none of those that only sound so.
const GENERIC: &[&str] = &["key", "pat"];
const OTHERS: &[(&str, Family)] = &[
    ("token", Family::Token),
    ("eyj", Family::Jwt),
    ("bearer", Family::Bearer),
    ("basic", Family::Basic),
    (".", Family::Dot),
    ("ssws", Family::Bearer),
    ("authorization", Family::Authorization),
    ("cookie", Family::Cookie),
    ("sig=", Family::Query),
    ("signature=", Family::Query),
    ("key=", Family::Query),
    ("auth=", Family::Query),
    ("code=", Family::Query),
    ("://", Family::Url),
    (":\\/\\/", Family::Url),
    (" -u", Family::UserFlag),
    (" --user ", Family::UserFlag),
    ("--user=", Family::UserFlag),
    (" --proxy-user ", Family::UserFlag),
    ("http -a ", Family::UserFlag),
    ("https -a ", Family::UserFlag),
    (" --auth ", Family::UserFlag),
    ("samlresponse=", Family::Query),
    ("sessionid=", Family::Query),
    ("session_id=", Family::Query),
    ("_session=", Family::Query),
    ("sid=", Family::Query),
    ("mysql", Family::Command(" -p")),
    ("mariadb", Family::Command(" -p")),
    ("sshpass", Family::Command(" -p")),
    ("docker login", Family::Command(" -p")),
    ("psexec", Family::Command(" -p")),
    ("mongo", Family::Command(" -p")),
    ("twine", Family::Command(" -p")),
    ("az login", Family::Command(" -p")),
    ("rdesktop", Family::Command(" -p")),
    ("useradd", Family::Command(" -p")),
    ("7z ", Family::Command(" -p")),
    ("redis-cli", Family::Command(" -a")),
    ("sqlcmd", Family::Command(" -P")),
    ("bcp ", Family::Command(" -P")),
    ("zip ", Family::Command(" -P")),
    ("ipmitool", Family::Command(" -P")),
    ("ldapsearch", Family::Command(" -w")),
    ("ldapmodify", Family::Command(" -w")),
    ("ldapadd", Family::Command(" -w")),
    ("ldappasswd", Family::Command(" -w")),
    ("ldapwhoami", Family::Command(" -w")),
    ("openssl", Family::Command(" -k ")),
    ("snmpwalk", Family::Command(" -c ")),
    ("snmpget", Family::Command(" -c ")),
    ("schtasks", Family::Command(" /rp")),
    ("freerdp", Family::Command(" /p:")),
    ("net use ", Family::Command(" /user:")),
    ("identified with", Family::Command(" by ")),
    ("identified with", Family::Command(" BY ")),
    ("net user ", Family::Next),
    ("htpasswd -b", Family::Next),
    ("wpa_passphrase", Family::Next),
    ("vault login", Family::Next),
    ("cargo login", Family::Next),
    ("rclone obscure", Family::Next),
    ("securestring", Family::Next),
    (":_authtoken", Family::Next),
    ("snmp-server community", Family::Next),
    ("server key", Family::Next),
    ("pac key", Family::Next),
    ("wpa-psk", Family::Next),
    ("networkcredential(", Family::Arguments),
    ("directoryentry(", Family::Arguments),
    ("basicauth(", Family::Arguments),
    ("auth=(", Family::Arguments),
    ("auth = (", Family::Arguments),
    ("getconnection(", Family::Arguments),
    (".login(", Family::Arguments),
    ("mysql_connect(", Family::Arguments),
    ("mysqli(", Family::Arguments),
    ("new pdo(", Family::Arguments),
    ("@tcp(", Family::Dsn),
    ("@unix(", Family::Dsn),
    (":5432:", Family::PgPass),
    ("oracle:thin:", Family::Slash),
    ("sqlplus ", Family::Slash),
    ("rabbitmqctl", Family::Next),
    ("pscredential(", Family::Arguments),
    (".auth(", Family::Arguments),
    ("chpasswd", Family::Piped),
    ("sudo -s", Family::Piped),
    ("auth ", Family::Protocol),
    ("identify ", Family::Protocol),
    (" -b ", Family::CookieFlag),
    ("wifi:", Family::Wifi),
    ("private key-----", Family::PrivateKey),
    ("private key block-----", Family::PrivateKey),
    ("private+key-----", Family::PrivateKey),
    ("private+key+block-----", Family::PrivateKey),
];

/// All literals, and in the same order their families.
pub(super) fn all() -> (Vec<String>, Vec<Family>) {
    let shapes = SHAPES.iter().map(|shape| (shape.prefix, Family::Shape(shape)));
    let infixes = INFIXES.iter().map(|infix| (infix.word, Family::Infix(infix)));
    let exact = EXACT.iter().map(|(prefix, parts)| (*prefix, Family::Exact(parts)));
    let strong = STRONG.iter().map(|name| (*name, Family::Key(Strength::Strong)));
    let weak = WEAK.iter().map(|name| (*name, Family::Key(Strength::Weak)));
    let foreign = FOREIGN.iter().map(|name| (name.part, Family::Foreign(name)));
    let generic = GENERIC.iter().map(|name| (*name, Family::Key(Strength::Generic)));
    let named = strong.chain(weak).chain(foreign).chain(generic);
    let known = shapes.chain(infixes).chain(exact).chain(named).chain(OTHERS.iter().copied());
    let known = known.map(|(literal, family)| (literal.to_owned(), family));
    known.chain(sids()).unzip()
}

fn sids() -> impl Iterator<Item = (String, Family)> {
    let digits = "0123456789abcdef".chars();
    digits.flat_map(|digit| ["SK", "AC"].map(|prefix| (format!("{prefix}{digit}"), Family::Sid)))
}

impl Family {
    /// What it costs to look, beside the bytes looked at.
    pub(super) fn cost(self) -> usize {
        match self {
            Family::Dot => 13,
            Family::Shape(_) | Family::Infix(_) | Family::Exact(_) | Family::Sid | Family::Key(_) => 28,
            _ => 40,
        }
    }

    /// What stands around the hit `text[start..end]`.
    pub(super) fn look(
        self,
        text: &Text<'_>,
        start: usize,
        end: usize,
        memo: &mut Memo,
        finds: &mut Finds,
    ) -> Option<Found> {
        match self {
            Family::Shape(shape) => shape.at(text, start, end).map(Found::from),
            Family::Infix(infix) => infix.at(text, start, end).map(Found::from),
            Family::Exact(parts) => tokens::exact(text, start, end, parts).map(Found::from),
            Family::Sid => tokens::sid(text, start).map(Found::from),
            Family::Dot => tokens::dotted(text, start).map(Found::from),
            Family::Jwt => tokens::jwt(text, start).map(Found::from),
            Family::Key(Strength::Weak) if !text::part_begins(text, start) => None,
            Family::Key(strength) => keys::value(text, start, end, strength, memo),
            Family::Token => keys::value(text, start, end, Strength::Token, memo)
                .or_else(|| schemes::scheme(text, start, end, 16, false)),
            Family::Bearer => schemes::scheme(text, start, end, 8, true),
            Family::Basic => schemes::basic(text, start, end),
            Family::Authorization => {
                schemes::authorization(text, end).or_else(|| keys::value(text, start, end, Strength::Token, memo))
            }
            Family::Cookie => {
                schemes::cookie(text, end).or_else(|| keys::value(text, start, end, Strength::Token, memo))
            }
            Family::Query => keys::query(text, start, end, memo),
            Family::Url => schemes::userinfo(text, end, memo),
            Family::Foreign(name) => name.at(text, start, end, memo),
            Family::Command(flag) => commands::command(text, start, end, flag),
            Family::Next => commands::next(text, start, end),
            Family::Arguments => commands::arguments(text, end),
            Family::Dsn => commands::dsn(text, start),
            Family::PgPass => commands::pgpass(text, start, end),
            Family::Slash => commands::slash(text, start, end),
            Family::Piped => commands::piped(text, start, end),
            Family::Protocol => commands::protocol(text, start, end),
            Family::CookieFlag => commands::cookie_flag(text, start, end),
            Family::Wifi => commands::wifi(text, end),
            Family::UserFlag => commands::user_flag(text, end),
            Family::PrivateKey => {
                let (range, open) = match pem::pem(text, start, end) {
                    Pem::Whole(range) | Pem::Tail(range) => (range, false),
                    Pem::Open(range) => (range, true),
                };
                finds.key_open = open;
                (!range.is_empty()).then(|| range.into())
            }
        }
    }
}
