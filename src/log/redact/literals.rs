//! Every literal that may announce a secret, and who looks at what stands around it.

use super::Finds;
use super::keys::{self, Found};
use super::pem::{self, Pem};
use super::schemes;
use super::text::{self, Text};
use super::tokens::{self, Memo, SHAPES};
use super::values::Strength;

/// Who looks at a hit.
#[derive(Clone, Copy)]
pub(super) enum Family {
    Shape(&'static tokens::Shape),
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
];
const WEAK: &[&str] = &["pass", "_auth", "\"auth", "api key", "jwt"];
const OTHERS: &[(&str, Family)] = &[
    ("token", Family::Token),
    ("eyj", Family::Jwt),
    ("bearer", Family::Bearer),
    ("basic", Family::Basic),
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
pub(super) fn all() -> (Vec<&'static str>, Vec<Family>) {
    let shapes = SHAPES.iter().map(|shape| (shape.prefix, Family::Shape(shape)));
    let strong = STRONG.iter().map(|name| (*name, Family::Key(Strength::Strong)));
    let weak = WEAK.iter().map(|name| (*name, Family::Key(Strength::Weak)));
    shapes.chain(strong).chain(weak).chain(OTHERS.iter().copied()).unzip()
}

impl Family {
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
