//! The plan: what configuration asks for, and the rules compiled from it for the table's words.

use super::client::Cidr;
use super::quota::Quota;
use super::tally::APPLIED_MAX;
use super::target::Target;
use super::verdict::{Policy, policy_header, violations};
use super::word::Limit;
use http::HeaderValue;
use std::io;

/// Scopes are the top byte of a limit's id and of its record in Redis: never renumber them. The order is the order of
/// counting, an endpoint's before the client's.
const SCOPE_CHAT: u8 = 1;
const SCOPE_INITIALIZE: u8 = 2;
const SCOPE_CLIENT: u8 = 3;
const SCOPE_AUTH: u8 = 4;
const SCOPE_TOKENS: u8 = 5;
/// Not a limit: begun when a cached refusal was last confirmed by Redis.
const SCOPE_CONFIRMED: u8 = 0xff;
/// A cached refusal of an hour's or a day's limit is confirmed so often, so that an operator's reset takes effect.
pub const CONFIRM_S: u32 = 5;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Anything below `/api/` and `/v1/` without limits of its own.
    Api = 0,
    /// `/api/chat` and `/v1/chat/completions`.
    Chat = 1,
    /// `/api/initialize`.
    Initialize = 2,
    /// An attempt with a missing or wrong API key; it has its own quotas alone.
    Auth = 3,
}

impl Endpoint {
    const ALL: [Endpoint; 4] = [Endpoint::Api, Endpoint::Chat, Endpoint::Initialize, Endpoint::Auth];
}

/// How an endpoint's limits go with the client-wide ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Both hold.
    #[default]
    Add,
    /// The endpoint's alone hold, as in flask-limiter.
    Replace,
}

/// What decides while Redis cannot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// This machine's table, from the last known count.
    #[default]
    Local,
    /// The same, with what was left divided among so many machines.
    Divide(u32),
    /// Everyone is admitted (and counted).
    Open,
    /// Nobody is admitted.
    Closed,
}

impl std::str::FromStr for Fallback {
    type Err = String;

    /// `local`, `divide:3`, `open`, `closed`.
    fn from_str(text: &str) -> Result<Fallback, String> {
        let machines = text.strip_prefix("divide:").and_then(|count| count.parse().ok());
        match (text, machines) {
            ("local", _) => Ok(Fallback::Local),
            ("open", _) => Ok(Fallback::Open),
            ("closed", _) => Ok(Fallback::Closed),
            (_, Some(machines @ 1..)) => Ok(Fallback::Divide(machines)),
            _ => Err(format!("{text:?} is none of local, divide:MACHINES, open, closed")),
        }
    }
}

/// What configuration asks for. `Default` is the specification's.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Client-wide quotas.
    pub default: Vec<Quota>,
    /// Those of [`Endpoint::Chat`].
    pub chat: Vec<Quota>,
    /// Those of [`Endpoint::Initialize`].
    pub initialize: Vec<Quota>,
    /// Those of [`Endpoint::Auth`].
    pub auth: Vec<Quota>,
    /// Budgets of tokens, for every client.
    pub tokens: Vec<Quota>,
    /// The different quotas that API keys have in place of all others.
    pub keys: Vec<Vec<Quota>>,
    /// See [`Mode`].
    pub mode: Mode,
    /// See [`Fallback`].
    pub fallback: Fallback,
    /// Count and tell, refuse nobody.
    pub dry_run: bool,
    /// Addresses that no limit applies to.
    pub allow: Vec<Cidr>,
    /// Send the limits' headers.
    pub headers: bool,
    /// Bits of an IPv6 address that are one client, 48 to 128.
    pub v6_prefix: u8,
    /// Size of the table; 4 MiB are about 50,000 clients a day.
    pub table_bytes: usize,
    /// The store that machines share.
    pub redis: Option<Target>,
    /// Secret that all machines hash clients with in Redis; without it one is kept in Redis.
    pub redis_key: Option<Vec<u8>>,
}

impl Default for Plan {
    fn default() -> Plan {
        let quota = |count, window_s| Quota { count, window_s };
        Plan {
            default: vec![quota(10, 60), quota(50, 3_600), quota(200, 86_400)],
            chat: vec![quota(10, 60)],
            initialize: vec![quota(5, 60)],
            auth: Vec::new(),
            tokens: Vec::new(),
            keys: Vec::new(),
            mode: Mode::Add,
            fallback: Fallback::Local,
            dry_run: false,
            allow: Vec::new(),
            headers: true,
            v6_prefix: 64,
            table_bytes: 4 << 20,
            redis: None,
            redis_key: None,
        }
    }
}

/// The limits of one endpoint, in the order of counting.
#[derive(PartialEq, Eq)]
pub struct Route {
    /// An endpoint's own first, narrow before wide.
    pub limits: Vec<Limit>,
    /// How each is called in headers.
    pub policies: Vec<Policy>,
    /// The `RateLimit-Policy` field, made once.
    pub policy: HeaderValue,
    /// What a refusal names, by the bits of the limits that are full.
    pub violations: Vec<String>,
}

/// The plan over the words of the table.
#[derive(PartialEq, Eq)]
pub struct Rules {
    /// Every limit that a word may hold, with the smallest of its numbers: the table forgets nobody who is near it.
    pub all: Vec<Limit>,
    /// See [`SCOPE_CONFIRMED`]; only with Redis.
    pub confirmed: Option<Limit>,
    /// One an endpoint, then one for each quota of keys.
    pub routes: Vec<Route>,
    /// The budgets of tokens; empty where there are none.
    pub tokens: Route,
    keys: Vec<Vec<Quota>>,
    /// See [`Plan`].
    pub fallback: Fallback,
    /// See [`Plan`].
    pub dry_run: bool,
    /// See [`Plan`].
    pub headers: bool,
    /// See [`Plan`].
    pub allow: Vec<Cidr>,
    /// See [`Plan`].
    pub v6_prefix: u8,
}

impl Rules {
    /// The limits for `endpoint`.
    pub fn route(&self, endpoint: Endpoint) -> &Route {
        &self.routes[endpoint as usize]
    }

    /// Where in [`Rules::routes`] the limits of a key with these quotas are, if the plan knew of them.
    pub fn of_key(&self, quotas: &[Quota]) -> Option<usize> {
        self.keys.iter().position(|known| known == quotas).map(|at| Endpoint::ALL.len() + at)
    }

    /// Compiles `plan` for words that hold the limits `directory` names (an id a word, 0 is free) and enters new ones
    /// there. A limit keeps its word, hence its counts, over every reload.
    ///
    /// # Errors
    /// More different limits than a slot has words, or than a request is measured by.
    pub fn compile(plan: &Plan, directory: &mut [u32]) -> io::Result<Rules> {
        Rules::compile_after(&[], plan, directory)
    }

    /// The same while workers still count by `former` limits: their words are taken last.
    ///
    /// # Errors
    /// As [`Rules::compile`].
    pub fn compile_after(former: &[Limit], plan: &Plan, directory: &mut [u32]) -> io::Result<Rules> {
        let all = lay_out(former, plan, directory)?;
        let confirmed = all.iter().copied().find(|limit| limit.id >> 24 == u32::from(SCOPE_CONFIRMED));
        let mut routes = Vec::from(Endpoint::ALL.map(|endpoint| Route::of(plan, endpoint, &all)));
        routes.extend(plan.keys.iter().map(|quotas| Route::of_key(quotas, &all)));
        if let Some(route) = routes.iter().find(|route| route.limits.len() > APPLIED_MAX) {
            let text = format!("{} rate limits on one request are more than {APPLIED_MAX}", route.limits.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let &Plan { fallback, dry_run, headers, v6_prefix, .. } = plan;
        let allow = plan.allow.clone();
        let keys = plan.keys.clone();
        let tokens = Route::over(all.iter().filter(|limit| is_of(limit, SCOPE_TOKENS)).copied().collect());
        let all = all.into_iter().map(|limit| limit.with_count(smallest(&limit, &routes))).collect();
        Ok(Rules { all, confirmed, routes, tokens, keys, fallback, dry_run, headers, allow, v6_prefix })
    }
}

/// Of the numbers that a limit has, its own and those of keys, the smallest.
fn smallest(limit: &Limit, routes: &[Route]) -> u32 {
    let same = routes.iter().flat_map(|route| &route.limits).filter(|known| known.id == limit.id);
    same.map(|known| known.count).min().unwrap_or(limit.count)
}

/// Every quota of the plan with its scope.
fn quotas(plan: &Plan) -> Vec<(u8, Quota)> {
    let scoped = |scope, quotas: &[Quota]| quotas.iter().map(|quota| (scope, *quota)).collect::<Vec<_>>();
    let confirm = plan.redis.is_some().then_some((SCOPE_CONFIRMED, Quota { count: u32::MAX, window_s: CONFIRM_S }));
    let (chat, initialize) = (scoped(SCOPE_CHAT, &plan.chat), scoped(SCOPE_INITIALIZE, &plan.initialize));
    let (auth, tokens) = (scoped(SCOPE_AUTH, &plan.auth), scoped(SCOPE_TOKENS, &plan.tokens));
    let clients = scoped(SCOPE_CLIENT, &plan.default);
    let mut all = [chat, initialize, auth, tokens, clients, confirm.into_iter().collect()].concat();
    // A limit's word is found by scope and window; a key's own number needs none of its own.
    for quota in plan.keys.iter().flatten() {
        if !all.iter().any(|(scope, known)| *scope == SCOPE_CLIENT && known.window_s == quota.window_s) {
            all.push((SCOPE_CLIENT, *quota));
        }
    }
    all
}

/// How many limits the plan needs words for.
pub fn limits_needed(plan: &Plan) -> usize {
    quotas(plan).len()
}

fn lay_out(former: &[Limit], plan: &Plan, directory: &mut [u32]) -> io::Result<Vec<Limit>> {
    let quotas = quotas(plan);
    let ids: Vec<u32> = quotas.iter().map(|(scope, quota)| super::word::id(*scope, quota.window_s)).collect();
    for id in &ids {
        if directory.contains(id) {
            continue;
        }
        // A word that never held anything, else one of a limit that the plan no longer has.
        let gone = |known: &u32| !ids.contains(known);
        let unused = |known: &u32| gone(known) && former.iter().all(|limit| limit.id != *known);
        let place = |fits: &dyn Fn(&u32) -> bool| directory.iter().position(fits);
        let free = place(&|known| *known == 0).or_else(|| place(&unused)).or_else(|| place(&gone));
        let Some(free) = free else {
            let text = format!("{} rate limits are more than the {} that fit a client", ids.len(), directory.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        directory[free] = *id;
    }
    let word = |id: &u32| directory.iter().position(|known| known == id).map_or(1, |at| at + 1);
    let limit = |((scope, quota), id): (&(u8, Quota), &u32)| match *scope {
        SCOPE_TOKENS => Limit::budget(SCOPE_TOKENS, *quota, word(id)),
        scope => Limit::new(scope, *quota, word(id)),
    };
    Ok(quotas.iter().zip(&ids).map(limit).collect())
}

impl Route {
    /// No limits at all.
    pub const fn nowhere() -> Route {
        Route { limits: Vec::new(), policies: Vec::new(), policy: HeaderValue::from_static(""), violations: Vec::new() }
    }

    fn of(plan: &Plan, endpoint: Endpoint, all: &[Limit]) -> Route {
        let scope = match endpoint {
            Endpoint::Api => 0,
            Endpoint::Chat => SCOPE_CHAT,
            Endpoint::Initialize => SCOPE_INITIALIZE,
            Endpoint::Auth => SCOPE_AUTH,
        };
        let of_scope = |wanted: u8| all.iter().copied().filter(move |limit| is_of(limit, wanted));
        let own: Vec<Limit> = of_scope(scope).collect();
        let replaced = endpoint == Endpoint::Auth || plan.mode == Mode::Replace && !own.is_empty();
        let of_clients = |limit: &Limit| plan.default.iter().any(|quota| is_window(limit, quota));
        let client = of_scope(SCOPE_CLIENT).filter(|limit| !replaced && of_clients(limit));
        Route::over(own.into_iter().chain(client).collect())
    }

    /// What a key with these quotas is measured by, wherever it asks.
    fn of_key(quotas: &[Quota], all: &[Limit]) -> Route {
        let limit = |quota: &Quota| {
            let known = all.iter().find(|limit| client_wide(limit) && is_window(limit, quota))?;
            Some(known.with_count(quota.count))
        };
        Route::over(quotas.iter().filter_map(limit).collect())
    }

    /// The limits with the names of their policies.
    pub fn named(&self) -> impl Iterator<Item = (&Limit, &str)> {
        self.limits.iter().zip(self.policies.iter().map(|policy| policy.name.as_str()))
    }

    fn over(limits: Vec<Limit>) -> Route {
        let policies: Vec<Policy> = limits.iter().map(|limit| Policy::new(limit, prefix(limit.id))).collect();
        let (policy, violations) = (policy_header(&policies), violations(&policies));
        Route { limits, policies, policy, violations }
    }
}

fn is_of(limit: &Limit, scope: u8) -> bool {
    limit.id >> 24 == u32::from(scope)
}

fn is_window(limit: &Limit, quota: &Quota) -> bool {
    limit.window_ms == u64::from(quota.window_s) * 1000
}

fn prefix(id: u32) -> &'static str {
    match (id >> 24) as u8 {
        SCOPE_CHAT => "chat-",
        SCOPE_INITIALIZE => "initialize-",
        SCOPE_AUTH => "auth-",
        SCOPE_TOKENS => "tokens-",
        _ => "",
    }
}

/// True for a limit that all of a client's requests share: those stand first in a record.
pub fn client_wide(limit: &Limit) -> bool {
    limit.id >> 24 == u32::from(SCOPE_CLIENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::quota;

    fn names(rules: &Rules, endpoint: Endpoint) -> Vec<&str> {
        rules.route(endpoint).policies.iter().map(|policy| policy.name.as_str()).collect()
    }

    #[test]
    fn the_defaults_are_the_specifications() {
        let rules = Rules::compile(&Plan::default(), &mut [0; 7]).unwrap();
        assert_eq!(names(&rules, Endpoint::Api), ["minute", "hour", "day"]);
        assert_eq!(names(&rules, Endpoint::Chat), ["chat-minute", "minute", "hour", "day"]);
        assert_eq!(names(&rules, Endpoint::Initialize), ["initialize-minute", "minute", "hour", "day"]);
        let policy = r#""minute";q=10;w=60, "hour";q=50;w=3600, "day";q=200;w=86400"#;
        assert_eq!(rules.route(Endpoint::Api).policy, policy);
    }

    #[test]
    fn replace_means_the_endpoints_alone() {
        let rules = Rules::compile(&Plan { mode: Mode::Replace, ..Plan::default() }, &mut [0; 7]).unwrap();
        assert_eq!(names(&rules, Endpoint::Chat), ["chat-minute"]);
        assert_eq!(names(&rules, Endpoint::Api), ["minute", "hour", "day"]);
    }

    #[test]
    fn a_key_has_its_own_numbers_in_the_same_words() {
        let quotas = quota::parse("1000/minute;5000/day").unwrap();
        let plan = Plan { keys: vec![quotas.clone()], auth: quota::parse("10/minute").unwrap(), ..Plan::default() };
        let rules = Rules::compile(&plan, &mut [0; 7]).unwrap();
        let own = &rules.routes[rules.of_key(&quotas).unwrap()];
        assert_eq!(own.policy, r#""minute";q=1000;w=60, "day";q=5000;w=86400"#);
        let minute = rules.route(Endpoint::Api).limits[0];
        assert_eq!((own.limits[0].word, minute.count), (minute.word, 10));
        assert_eq!(names(&rules, Endpoint::Auth), ["auth-minute"]);
        assert_eq!(rules.of_key(&quota::parse("1/minute").unwrap()), None);
    }

    #[test]
    fn who_is_full_by_the_smallest_number_of_a_word_is_full_to_the_table() {
        let key = |text: &str| quota::parse(text).unwrap();
        let keys = vec![key("5000/day;100/week"), key("20/day;3/week"), key("7/minute")];
        let plan = Plan { keys, ..Plan::default() };
        let rules = Rules::compile(&plan, &mut [0; 7]).unwrap();
        let count = |window_s: u64| {
            let of_window = |limit: &&Limit| client_wide(limit) && limit.window_ms == window_s * 1_000;
            rules.all.iter().find(of_window).unwrap().count
        };
        assert_eq!([60, 3_600, 86_400, 604_800].map(count), [7, 50, 20, 3]);
        assert_eq!(
            rules.route(Endpoint::Api).limits.iter().map(|limit| limit.count).collect::<Vec<_>>(),
            [10, 50, 200]
        );
    }

    #[test]
    fn a_limit_keeps_its_word_over_reloads() {
        let mut directory = [0; 7];
        let before = Rules::compile(&Plan::default(), &mut directory).unwrap();
        let day_word = before.route(Endpoint::Api).limits[2].word;
        let plan = Plan { default: quota::parse("3/second;7/minute;900/day").unwrap(), ..Plan::default() };
        let after = Rules::compile(&plan, &mut directory).unwrap();
        assert_eq!(after.route(Endpoint::Api).limits[2].word, day_word);
        assert_eq!(after.route(Endpoint::Api).limits[2].count, 900);
        let words: std::collections::HashSet<_> = after.all.iter().map(|limit| limit.word).collect();
        assert_eq!(words.len(), after.all.len());
    }

    #[test]
    fn too_many_limits_are_refused_and_those_that_are_gone_give_their_words() {
        let mut directory = [0; 7];
        let plan = |text: &str| Plan { default: quota::parse(text).unwrap(), ..Plan::default() };
        Rules::compile(&plan("1/second;1/2 seconds;1/3 seconds;1/4 seconds;1/5 seconds"), &mut directory).unwrap();
        Rules::compile(&plan("1/6 seconds;1/7 seconds;1/8 seconds;1/9 seconds;1/10 seconds"), &mut directory).unwrap();
        let six = "1/second;1/2 seconds;1/3 seconds;1/4 seconds;1/5 seconds;1/6 seconds";
        let error = Rules::compile(&plan(six), &mut directory).err().unwrap().to_string();
        assert!(error.starts_with("8 rate limits are more than the 7"), "{error}");
        let nine = format!("{six};1/7 seconds;1/8 seconds;1/9 seconds");
        let error = Rules::compile(&plan(&nine), &mut [0; 15]).err().unwrap().to_string();
        assert!(error.starts_with("9 rate limits on one request"), "{error}");
    }

    #[test]
    fn fallbacks_are_read() {
        assert_eq!("divide:3".parse(), Ok(Fallback::Divide(3)));
        assert_eq!("closed".parse(), Ok(Fallback::Closed));
        for bad in ["divide", "divide:0", "", "Local"] {
            assert!(bad.parse::<Fallback>().unwrap_err().contains(bad));
        }
    }
}
