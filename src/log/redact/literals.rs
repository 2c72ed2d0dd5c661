//! Every literal that may announce a secret, and who looks at what stands around it.

use super::Finds;
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
    /// A program and its flag for a password.
    Command(&'static [u8; 2]),
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
];
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
    ("mysql", Family::Command(b"-p")),
    ("mariadb", Family::Command(b"-p")),
    ("sshpass", Family::Command(b"-p")),
    ("docker login", Family::Command(b"-p")),
    ("redis-cli", Family::Command(b"-a")),
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
    let generic = GENERIC.iter().map(|name| (*name, Family::Key(Strength::Generic)));
    let known =
        shapes.chain(infixes).chain(exact).chain(strong).chain(weak).chain(generic).chain(OTHERS.iter().copied());
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
            Family::Dot => 10,
            Family::Shape(_) | Family::Infix(_) | Family::Exact(_) | Family::Sid => 16,
            _ => 30,
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
            Family::Command(flag) => schemes::command(text, end, flag),
            Family::UserFlag => schemes::user_flag(text, end),
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
