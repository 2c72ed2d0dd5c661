//! Where to listen: what is written, or what systemd handed over.

use super::values::Values;
use crate::listener::{Address, inherited};

/// Where to listen; what systemd bound before us when nobody says, else all of it has to be named.
pub fn addresses(values: &mut Values<'_>) -> Vec<Address> {
    let handed = inherited::names(|name| values.raw.variable(name).map(str::to_owned));
    let port = values.optional_count("port");
    let public = match (values.is_set("bind"), port) {
        (false, None) if !handed.is_empty() => inherited::all(&handed),
        (false, Some(port)) => parsed(values, "bind", vec![format!("0.0.0.0:{port}")], &handed),
        _ => parsed(values, "bind", values.texts("bind"), &handed),
    };
    let admin = values.texts("admin_bind").into_iter().filter(|text| !text.is_empty()).collect();
    let admin = parsed(values, "admin_bind", admin, &handed);
    let admin = admin.into_iter().map(|address| Address::Admin(Box::new(address)));
    let all: Vec<Address> = public.into_iter().chain(admin).collect();
    for unnamed in inherited::unnamed(&handed, &all) {
        let place = unnamed.local().map_or(String::new(), |local| format!(" ({local})"));
        values.problems.failure(format!(
            "systemd handed {unnamed}{place} over and nobody listens there: leave BIND and PORT away, or name it in BIND \
             or ADMIN_BIND"
        ));
    }
    all
}

fn parsed(values: &mut Values<'_>, key: &str, texts: Vec<String>, handed: &[String]) -> Vec<Address> {
    let source = values.source(key);
    let mut addresses = Vec::new();
    for text in texts {
        let read = inherited::parse(&text, handed);
        match read.unwrap_or_else(|| Address::parse(&text).map(|address| vec![address])) {
            Ok(read) => addresses.extend(read),
            Err(reason) => values.problems.error(&source, reason),
        }
    }
    addresses
}
