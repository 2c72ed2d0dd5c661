//! The chat page, the status page and their files: compiled in, told apart by a hash of what they hold. Pure.
//!
//! Each file is asked for again at every load and answered with 304 while it is the same, so that an upgrade is never
//! half a page. Deliberately absent: anything from elsewhere, inline code, and a framework.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use super::body::Body;

/// Nothing but this server's own files and endpoints; no text becomes markup or code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A file of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// `GET /` for a browser.
    Index,
    /// `/page/page.css`
    Style,
    /// `/page/page.js`
    Script,
    /// `/page/talk.js`
    Talk,
    /// `/page/text.js`
    Text,
    /// `/page/icon.svg`
    Icon,
    /// `GET /status` at the operators' address, for a browser.
    Status,
    /// `/status/status.css`
    StatusStyle,
    /// `/status/status.js`
    StatusScript,
    /// `/status/draw.js`
    StatusDraw,
}

impl File {
    /// The file below `/page/` that this path names.
    pub fn at(path: &str) -> Option<File> {
        match path {
            "/page/page.css" => Some(File::Style),
            "/page/page.js" => Some(File::Script),
            "/page/talk.js" => Some(File::Talk),
            "/page/text.js" => Some(File::Text),
            "/page/icon.svg" => Some(File::Icon),
            _ => None,
        }
    }

    /// The file below `/status/` that this path names, at the operators' address.
    pub fn at_status(path: &str) -> Option<File> {
        match path {
            "/status/status.css" => Some(File::StatusStyle),
            "/status/status.js" => Some(File::StatusScript),
            "/status/draw.js" => Some(File::StatusDraw),
            "/status/icon.svg" => Some(File::Icon),
            _ => None,
        }
    }

    /// The response, on prepared security headers: whole, or 304 when the browser has it.
    pub fn response(self, mut headers: HeaderMap, asked: &HeaderMap) -> Response<Body> {
        let row = &FILES[self as usize];
        let mut etag = [0; 18];
        let etag = HeaderValue::from_bytes(quoted_hex(row.hash, &mut etag));
        let known = etag.as_ref().is_ok_and(|etag| has(asked, etag.as_bytes()));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(row.content_type));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Ok(etag) = etag {
            headers.insert(header::ETAG, etag);
        }
        let body = if known { Body::empty() } else { Body::whole(Bytes::from_static(row.text.as_bytes())) };
        let mut response = Response::new(body);
        *response.status_mut() = if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
        *response.headers_mut() = headers;
        response
    }
}

/// `GET /` has two answers: caches have to know.
pub fn vary_by_accept(headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("Accept"));
}

/// True when HTML is wanted more than JSON, or as much and named before it (RFC 9110, 12.5.1). Whoever takes anything gets JSON.
pub fn wanted(asked: &HeaderMap) -> bool {
    let (mut html, mut json) = (Wish::default(), Wish::default());
    let values = asked.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for (place, range) in values.flat_map(|value| value.split(',')).enumerate() {
        let mut pieces = range.split(';').map(str::trim);
        let name = pieces.next().unwrap_or_default();
        let Some(quality) = quality(pieces) else { continue };
        html.hear(name, ["text/html", "text/*"], quality, place);
        json.hear(name, ["application/json", "application/*"], quality, place);
    }
    html.quality > 0 && (html.quality, html.rank(), json.place) > (json.quality, json.rank(), html.place)
}

/// How much one type is wanted: by the most specific range that covers it.
#[derive(Default)]
struct Wish {
    specificity: u8,
    /// In thousandths.
    quality: u16,
    place: usize,
}

impl Wish {
    fn hear(&mut self, name: &str, ranges: [&str; 2], quality: u16, place: usize) {
        let specificity = if name.eq_ignore_ascii_case(ranges[0]) {
            3
        } else if name.eq_ignore_ascii_case(ranges[1]) {
            2
        } else if name == "*/*" {
            1
        } else {
            return;
        };
        if specificity > self.specificity {
            *self = Wish { specificity, quality, place };
        }
    }

    /// Of two types wanted alike, one that was named wins over one that a wildcard covers.
    fn rank(&self) -> bool {
        self.specificity > 1
    }
}

/// A range's `q` in thousandths; 1000 without one, `None` when it is not a number from 0 to 1.
fn quality<'a>(mut parameters: impl Iterator<Item = &'a str>) -> Option<u16> {
    let weight = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then_some(value.trim())
    });
    let Some(weight) = weight else { return Some(1000) };
    let weight = weight.parse::<f32>().ok().filter(|weight| (0.0..=1.0).contains(weight))?;
    Some((weight * 1000.0) as u16)
}

/// True when `If-None-Match` holds this tag, or any.
fn has(asked: &HeaderMap, etag: &[u8]) -> bool {
    let values = asked.get_all(header::IF_NONE_MATCH).iter();
    let mut tags = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    tags.any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag)
}

struct Row {
    content_type: &'static str,
    text: &'static str,
    hash: u64,
}

const fn row(content_type: &'static str, text: &'static str) -> Row {
    Row { content_type, text, hash: fnv(text.as_bytes()) }
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// In the order of [`File`].
static FILES: [Row; 10] = [
    row("text/html; charset=utf-8", include_str!("page/index.html")),
    row("text/css; charset=utf-8", include_str!("page/page.css")),
    row(JAVASCRIPT, include_str!("page/page.js")),
    row(JAVASCRIPT, include_str!("page/talk.js")),
    row(JAVASCRIPT, include_str!("page/text.js")),
    row("image/svg+xml", include_str!("page/icon.svg")),
    row("text/html; charset=utf-8", include_str!("page/status.html")),
    row("text/css; charset=utf-8", include_str!("page/status.css")),
    row(JAVASCRIPT, include_str!("page/status.js")),
    row(JAVASCRIPT, include_str!("page/draw.js")),
];

/// FNV-1a, 64 bits: tells versions of a file apart; nobody attacks it, for the files are ours.
const fn fnv(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

fn quoted_hex(hash: u64, buffer: &mut [u8; 18]) -> &[u8] {
    *buffer = [b'"'; 18];
    for (at, byte) in buffer[1..17].iter_mut().enumerate() {
        let digit = (hash >> (60 - 4 * at)) & 0xf;
        *byte = b"0123456789abcdef"[digit as usize];
    }
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))])
    }

    #[test]
    fn browsers_get_the_page_and_programs_get_json() {
        for yes in [
            "text/html",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "TEXT/HTML;charset=utf-8",
            "text/*, */*;q=0.1",
            "text/html, application/json",
            "application/json;q=0.5, text/html;q=0.6",
            "*/*, text/html",
        ] {
            assert!(wanted(&accept(yes)), "{yes}");
        }
        for no in [
            "",
            "*/*",
            "application/json",
            "application/json, text/html",
            "application/json, text/html;q=0.9, */*",
            "text/html;q=0, */*",
            "text/html;q=0",
            "text/html;q=2",
            "text/html;q=x, */*",
            "image/png",
        ] {
            assert!(!wanted(&accept(no)), "{no}");
        }
        assert!(!wanted(&HeaderMap::new()));
    }

    #[test]
    fn a_file_that_the_browser_has_is_304() {
        let first = File::Style.response(HeaderMap::new(), &HeaderMap::new());
        let etag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        for known in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()] {
            let asked = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_str(&known).unwrap())]);
            assert_eq!(File::Style.response(HeaderMap::new(), &asked).status(), 304, "{known}");
            assert_eq!(File::Script.response(HeaderMap::new(), &asked).status() == 304, known == "*");
        }
        assert_eq!(etag.len(), 18);
    }

    #[test]
    fn every_file_that_is_named_is_there_and_nothing_is_inline() {
        let text = |file: File| FILES[file as usize].text;
        let inline = regex::Regex::new(r"<style| style=|://| on[a-z]+=|<script>").unwrap();
        for (page, folder) in [(File::Index, "page/"), (File::Status, "status/")] {
            let at = |path: &str| if page == File::Index { File::at(path) } else { File::at_status(path) };
            assert_eq!(inline.find(text(page)).map(|found| found.as_str()), None);
            let names = text(page).split('"').filter(|piece| piece.starts_with(folder));
            assert!(names.map(|name| assert!(at(&format!("/{name}")).is_some(), "{name}")).count() >= 4);
        }
        for script in [File::Script, File::Talk, File::Text, File::StatusScript, File::StatusDraw] {
            assert!(!text(script).contains("innerHTML") && !text(script).contains("eval("));
            let imports = text(script).split("from \"./").skip(1).filter_map(|rest| rest.split('"').next());
            let known = |name| File::at(&format!("/page/{name}")).or(File::at_status(&format!("/status/{name}")));
            imports.for_each(|name| assert!(known(name).is_some(), "{name}"));
        }
    }
}
