//! The command line: commands, one flag a setting, and `--help`.

use super::raw::Flags;
use super::settings::{Kind, SETTINGS, Setting};
use crate::cli::order::Order;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::ffi::OsString;
use std::path::PathBuf;

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Run.
    Serve,
    /// Validate the configuration.
    Check,
    /// Print the configuration.
    Config,
    /// Bring the session store's schema up to date.
    Migrate,
    /// Ask the running server whether it lives.
    Healthcheck,
    /// Filter stdin through the log redactor.
    Redact,
    /// Talk to a running server.
    Chat,
    /// Go through the security checklist.
    Audit,
    /// Make an API key.
    KeyNew,
    /// Show the API keys.
    KeyList,
    /// End an API key.
    KeyRevoke,
    /// Look at, or delete, what is stored of conversations.
    Sessions(Sessions),
    /// Show a client's limits, or reset them.
    Limits {
        /// Forget its counts.
        reset: bool,
    },
    /// Read the log files.
    Logs,
    /// Tell or ask a running server something.
    Order(Order),
    /// A new program that shows that it could take over; the master starts it.
    Proof,
    /// The model's process; the master starts it.
    Engine,
}

/// What is to be done with stored sessions; a number names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// Show all, without what was said.
    List,
    /// Show what was said.
    Show(i64),
    /// One, or all, as JSON lines.
    Export(Option<i64>),
    /// Delete one.
    Delete(i64),
    /// Delete all that were idle for too long.
    Purge,
}

const AFTER: &str =
    "Every setting is a flag, a variable and a key of chatcorn.toml; a flag wins over the environment, over .env,
over chatcorn.toml, over the default. A secret has no flag: set NAME, or NAME_FILE to a file that holds it.

Signals to the master: HUP reload, USR1 reopen logs, USR2 upgrade, TTIN and TTOU one worker more or less, TERM stop gracefully,
INT and QUIT stop now. Exit codes: 0 stopped, 1 failure, 2 usage, 3 no worker could boot, 69 address in use,
78 configuration.";

/// Reads the command line.
///
/// # Errors
/// Usage, or a request for help or the version: clap's own text and exit code.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<(Wish, Flags), clap::Error> {
    let matches = command().try_get_matches_from(args)?;
    let (wish, matches) = match matches.subcommand() {
        Some(("check", inner)) => (Wish::Check, inner.clone()),
        Some(("config", inner)) => (Wish::Config, inner.clone()),
        Some(("migrate", inner)) => (Wish::Migrate, inner.clone()),
        Some(("healthcheck", inner)) => (Wish::Healthcheck, inner.clone()),
        Some(("redact", inner)) => (Wish::Redact, inner.clone()),
        Some(("chat", inner)) => (Wish::Chat, inner.clone()),
        Some(("audit", inner)) => (Wish::Audit, inner.clone()),
        Some(("key", inner)) => match inner.subcommand() {
            Some(("new", inner)) => (Wish::KeyNew, inner.clone()),
            Some(("revoke", inner)) => (Wish::KeyRevoke, inner.clone()),
            Some((_, inner)) => (Wish::KeyList, inner.clone()),
            None => (Wish::KeyList, inner.clone()),
        },
        Some(("sessions", inner)) => {
            let (wish, inner) = sessions_wish(inner);
            (Wish::Sessions(wish), inner.clone())
        }
        Some(("limits", inner)) => match inner.subcommand() {
            Some((name, inner)) => (Wish::Limits { reset: name == "reset" }, inner.clone()),
            None => (Wish::Limits { reset: false }, inner.clone()),
        },
        Some(("logs", inner)) => (Wish::Logs, inner.clone()),
        Some((name, inner)) if order(name, inner).is_some() => {
            (order(name, inner).map_or(Wish::Serve, Wish::Order), inner.clone())
        }
        Some(("proof", inner)) => (Wish::Proof, inner.clone()),
        Some(("engine", inner)) => (Wish::Engine, inner.clone()),
        Some((_, inner)) => (Wish::Serve, inner.clone()),
        None => (Wish::Serve, matches),
    };
    Ok((wish, flags(&matches)))
}

fn command() -> Command {
    let serve = with_settings(Command::new("serve").about("Run the server in the foreground (the default)"));
    let check = with_settings(Command::new("check").about("Load and validate the configuration; exit 0 or 78"));
    let config = with_settings(Command::new("config").about("Print each setting, its value and where it came from"));
    let migrate = with_settings(Command::new("migrate").about("Bring the session store's schema up to date"));
    let health =
        with_settings(with_url(Command::new("healthcheck").about("Ask the running server's /healthz; exit 0 or 1")));
    let redact = with_settings(Command::new("redact").about("Filter stdin through the log redactor"));
    let chat = with_settings(with_url(
        Command::new("chat")
            .about("Talk to a running server; a pipe's text is one message. A key stands in CHATCORN_API_KEY"),
    ));
    let audit =
        with_settings(with_url(Command::new("audit").about("Go through the security checklist; exit 1 on a failure")))
            .arg(switch("json", "print JSON"))
            .arg(switch("try-limit", "send up to 300 requests, until one is refused"));
    let logs = logs(with_settings(Command::new("logs").about("Read the log files, rotated ones included")));
    let engine = Command::new("engine").about("The model's process; the master starts it").hide(true);
    let proof = Command::new("proof").about("Shows that it could take over; the master starts it").hide(true);
    with_settings(Command::new("chatcorn"))
        .about("A supervised, rate-limited, securely logged chat API, with the model included")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(AFTER)
        .args_conflicts_with_subcommands(true)
        .max_term_width(120)
        .subcommands([
            serve,
            check,
            config,
            migrate,
            health,
            redact,
            chat,
            audit,
            key(),
            sessions(),
            limits(),
            logs,
            engine,
            proof,
        ])
        .subcommands(orders().map(with_settings))
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn with_url(command: Command) -> Command {
    command.arg(
        Arg::new("url")
            .value_name("URL")
            .help("http(s)://host:port or unix:/path [default: where `serve` would listen]"),
    )
}

fn key() -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let new = Command::new("new")
        .about("Make a key; it is shown this once")
        .arg(text("name", "TEXT", "whose it is, for people"))
        .arg(text("expires-days", "DAYS", "days until it ends").value_parser(value_parser!(u64).range(1..=36_500)))
        .arg(text("quota", "QUOTAS", "its own quotas, in place of all others, as in \"100 per minute;5000 per day\""));
    let list = Command::new("list").about("Show every key's id, name, times and quotas");
    let revoke = Command::new("revoke").about("End a key").arg(Arg::new("id").value_name("ID").required(true));
    Command::new("key")
        .about("API keys, in API_KEYS_FILE")
        .subcommand_required(true)
        .subcommands([new, list, revoke].map(with_settings))
}

fn limits() -> Command {
    let client = Arg::new("id").value_name("CLIENT").required(true);
    let client = client.help("an address, `unix` for a Unix socket's peers, or the id of an API key");
    let [show, reset] = [("show", "How a client stands in each of its limits"), ("reset", "Let a client begin anew")]
        .map(|(name, about)| Command::new(name).about(about).arg(client.clone()).arg(switch("json", "as JSON")));
    Command::new("limits")
        .about("A client's rate limits on a running server")
        .subcommand_required(true)
        .subcommands([show, reset].map(with_settings))
}

fn sessions() -> Command {
    let number = || Arg::new("number").value_name("NUMBER").value_parser(value_parser!(i64));
    let list = Command::new("list").about("Show the sessions used last");
    let show = Command::new("show").about("Show what was said in one").arg(number().required(true));
    let export = Command::new("export").about("One, or all, as lines of JSON; whole ids included").arg(number());
    let delete = Command::new("delete").about("Delete one").arg(number().required(true));
    let purge = Command::new("purge").about("Delete all that were idle for longer than --session-ttl-days");
    Command::new("sessions")
        .about("Look at, or delete, what is stored of conversations")
        .subcommand_required(true)
        .subcommands([list, show, export, delete, purge].map(with_settings))
}

fn sessions_wish(matches: &ArgMatches) -> (Sessions, &ArgMatches) {
    let number = |inner: &ArgMatches| inner.get_one::<i64>("number").copied();
    match matches.subcommand() {
        Some(("show", inner)) => (Sessions::Show(number(inner).unwrap_or(0)), inner),
        Some(("export", inner)) => (Sessions::Export(number(inner)), inner),
        Some(("delete", inner)) => (Sessions::Delete(number(inner).unwrap_or(0)), inner),
        Some(("purge", inner)) => (Sessions::Purge, inner),
        Some((_, inner)) => (Sessions::List, inner),
        None => (Sessions::List, matches),
    }
}

fn logs(command: Command) -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help).help_heading("Which lines")
    };
    let follow = Arg::new("follow").short('f').long("follow").action(ArgAction::SetTrue);
    command
        .arg(follow.help("go on with what is written later, over rotations").help_heading("Which lines"))
        .arg(text("since", "TIME", "from then on: 15m, 2h, 3d ago, or 2026-01-02T03:04 (UTC)"))
        .arg(text("level", "LEVEL", "this severe or more: error, warning, info, debug"))
        .arg(text("request", "ID", "one request alone, by its X-Request-Id"))
        .arg(text("color", "WHEN", "for people, in colour: always, never, or auto (on a terminal)"))
}

/// Commands for a running server.
fn orders() -> [Command; 7] {
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help).help_heading("Options")
    };
    let count = Arg::new("N").required(true).value_parser(value_parser!(u16).range(1..)).help("worker processes");
    [
        Command::new("status").about("Show a running server").arg(switch("json", "as JSON")),
        Command::new("top").about("Show a running server, live"),
        Command::new("reload").about("Reread the configuration and roll the workers; exit 1 when it is refused"),
        Command::new("upgrade").about("Replace a running server's program; exit 1 when the new one does not stand"),
        Command::new("stop").about("Stop a running server").arg(switch("now", "do not finish what is under way")),
        Command::new("reopen").about("Open the log files anew"),
        Command::new("scale").about("Change the number of workers").arg(count),
    ]
}

fn order(name: &str, matches: &ArgMatches) -> Option<Order> {
    Some(match name {
        "status" => Order::Status { json: matches.get_flag("json") },
        "top" => Order::Top,
        "reload" => Order::Reload,
        "upgrade" => Order::Upgrade,
        "stop" => Order::Stop { now: matches.get_flag("now") },
        "reopen" => Order::Reopen,
        "scale" => Order::Scale(usize::from(*matches.get_one::<u16>("N")?)),
        _ => return None,
    })
}

fn with_settings(command: Command) -> Command {
    let file = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .value_parser(value_parser!(PathBuf))
            .help(help)
            .help_heading("Files")
    };
    let command = command
        .arg(file("config", "FILE", "settings file [CHATCORN_CONFIG; default: chatcorn.toml when it is there]"))
        .arg(file("env-file", "FILE", "variables file [CHATCORN_ENV_FILE; default: .env when it is there]"));
    let flags = SETTINGS.iter().filter(|setting| !setting.flag.is_empty());
    flags.fold(command, |command, setting| command.arg(flag(setting)))
}

fn flag(setting: &'static Setting) -> Arg {
    let default = if setting.default.is_empty() { String::new() } else { format!("; default: {}", setting.default) };
    let action = if setting.many { ArgAction::Append } else { ArgAction::Set };
    let arg = Arg::new(setting.key);
    let arg = match setting.kind {
        // A switch: the flag alone says true.
        Kind::OneOf(&["true", "false"]) => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        _ => arg,
    };
    arg.long(setting.flag)
        .value_name(value_name(setting.kind))
        .action(action)
        .allow_hyphen_values(true)
        .help(format!("{} [{}{default}]", setting.help, setting.env))
        .help_heading(setting.group)
}

fn value_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Path => "PATH",
        Kind::Count(..) | Kind::ThreadCount => "N",
        Kind::Seconds(..) => "SECONDS",
        Kind::Decimal(..) => "NUMBER",
        Kind::Bytes(..) => "BYTES",
        Kind::OneOf(_) => "WORD",
        Kind::Text | Kind::Secret | Kind::Url => "TEXT",
    }
}

fn flags(matches: &ArgMatches) -> Flags {
    let mut flags = Flags::default();
    let path = |name| matches.try_get_one::<PathBuf>(name).ok().flatten().cloned();
    flags.config_file = path("config");
    flags.env_file = path("env-file");
    let given = |name| matches.try_get_one::<bool>(name).ok().flatten().copied().unwrap_or(false);
    (flags.json, flags.try_limit) = (given("json"), given("try-limit"));
    let text = |name| matches.try_get_one::<String>(name).ok().flatten().cloned();
    flags.url = text("url");
    flags.key.name = text("name").unwrap_or_default();
    flags.key.quota = text("quota");
    flags.key.id = text("id").unwrap_or_default();
    flags.key.expires_days = matches.try_get_one::<u64>("expires-days").ok().flatten().copied();
    flags.follow = matches.try_get_one::<bool>("follow").ok().flatten().copied().unwrap_or(false);
    for name in ["since", "level", "request", "color"] {
        if let Ok(Some(text)) = matches.try_get_one::<String>(name) {
            flags.reading.insert(name, text.clone());
        }
    }
    for setting in SETTINGS.iter().filter(|setting| !setting.flag.is_empty()) {
        if let Ok(Some(texts)) = matches.try_get_many::<String>(setting.key) {
            flags.values.insert(setting.key, texts.cloned().collect());
        }
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<(Wish, Flags), clap::Error> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_command_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_and_flags_repeat() {
        let (wish, flags) = read("chatcorn --bind a:1 --bind b:2 --workers 3").unwrap();
        assert_eq!((wish, flags.values["bind"].len(), flags.values["workers"][0].as_str()), (Wish::Serve, 2, "3"));
        assert_eq!(read("chatcorn check --config x.toml").unwrap().1.config_file, Some("x.toml".into()));
        assert_eq!(read("chatcorn serve --workers 2").unwrap().0, Wish::Serve);
    }

    #[test]
    fn a_secret_has_no_flag_and_a_typing_error_gets_a_hint() {
        assert_eq!(read("chatcorn --hf-token x").unwrap_err().exit_code(), 2);
        assert!(read("chatcorn --wokers 3").unwrap_err().to_string().contains("--workers"));
    }
}
