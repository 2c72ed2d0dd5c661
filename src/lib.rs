//! Chatcorn: gunicorn for chat APIs.
//!
//! The ladder, in calling order; a module imports only what stands to its right:
//! `lib → config → master → worker | engine → http → limit | chat → listener → log → board → sys`.
//!
//! ```text
//! main ─▶ config: read, resolve ─▶ listener: bind ─▶ master: run
//! ```

pub mod board;
pub mod chat;
pub mod cli;
pub mod config;
pub mod engine;
pub mod http;
pub mod limit;
pub mod listener;
pub mod log;
pub mod master;
pub mod sys;
pub mod worker;

use config::args::{self, Wish};
use config::problem::Problems;
use config::{Plan, Sources, settings};
use listener::{Address, BindError, Listener, Purpose, Wanted};
use master::handover::{self, Origin, Parcel};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Exit code of an address that somebody else listens on (`EX_UNAVAILABLE`).
const EXIT_ADDRESS_IN_USE: u8 = 69;
/// Exit code of a configuration that cannot be used (`EX_CONFIG`).
const EXIT_CONFIG: u8 = 78;

/// The program: reads the command line and does what it says.
pub fn main() -> ExitCode {
    let mut environment = sys::env::read();
    let parcel = Parcel::received(&environment);
    let (wish, flags) = match args::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(usage) => {
            let _ = usage.print();
            return ExitCode::from(usage.exit_code() as u8);
        }
    };
    sys::env::scrub(settings::is_secret_env);
    if let (Some(parcel), true) = (parcel, matches!(wish, Wish::Serve | Wish::Proof)) {
        return if wish == Wish::Proof { prove(parcel) } else { resume(parcel) };
    }
    listener::inherited::keep_own(&mut environment);
    let program = program(&environment);
    let mut sources = Sources { flags, environment, engine_socket: Vec::new() };
    match wish {
        Wish::Serve => serve(&mut sources, program),
        Wish::Check => check(&sources),
        Wish::Config => show(&sources),
        Wish::Migrate => migrate(&sources),
        Wish::Healthcheck => healthcheck(&sources),
        Wish::Redact => redact(&sources),
        Wish::Chat => chat(&sources),
        Wish::Audit => audit(&sources),
        Wish::KeyNew | Wish::KeyList | Wish::KeyRevoke => key(wish, &sources),
        Wish::Sessions(wish) => sessions(&sources, wish),
        Wish::Limits { reset } => {
            let given = (&sources.flags.key.id, sources.flags.json);
            let done = cli::limits::run(&sources.control_socket(), given.0, reset, given.1);
            done.map_or_else(|reason| failed(reason, 1), |()| ExitCode::SUCCESS)
        }
        Wish::Logs => logs(&sources),
        Wish::Order(order) => match cli::order::run(order, &sources.control_socket()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => failed(reason, 1),
        },
        Wish::Proof => failed("a running server asks for a proof by itself: see chatcorn upgrade", 2),
        Wish::Engine => run_engine(),
    }
}

fn run_engine() -> ExitCode {
    match engine::Settings::from_environment() {
        Ok(settings) => {
            let open = engine::walls::raise(&settings);
            if let Err(reason) = engine_log(&settings) {
                return failed(reason, 1);
            }
            open.iter().for_each(|reason| tracing::warn!(%reason, "the engine is not confined"));
            engine::run(settings)
        }
        Err(reason) => failed(reason, 2),
    }
}

/// Its stderr is its log pipe; what it says itself goes there as records.
fn engine_log(settings: &engine::Settings) -> Result<(), String> {
    let plan = log::Plan::from_words(&std::env::var(log::PLAN_VARIABLE).unwrap_or_default());
    let duplicate = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned();
    let pipe = duplicate(std::os::fd::AsFd::as_fd(&std::io::stderr())).map_err(|error| error.to_string())?;
    let board = sys::fd::adopt(settings.board_fd)
        .and_then(|fd| board::Board::adopt(fd.try_clone()?).inspect(|_| std::mem::forget(fd)));
    log::start(&plan, board::Sender::Engine, pipe, board.map_err(|error| error.to_string())?)
}

fn check(sources: &Sources) -> ExitCode {
    let (plan, problems) = sources.load();
    eprint!("{problems}");
    match plan {
        Some(_) => {
            println!("the configuration is good");
            ExitCode::SUCCESS
        }
        None => ExitCode::from(EXIT_CONFIG),
    }
}

fn show(sources: &Sources) -> ExitCode {
    let mut problems = Problems::default();
    let raw = sources.raw(&mut problems);
    print!("{}", config::table(&raw));
    eprint!("{problems}");
    if problems.errors().is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CONFIG) }
}

fn healthcheck(sources: &Sources) -> ExitCode {
    let own = sources.flags.url.is_none();
    let asked = running(sources).and_then(|server| {
        let proxy_protocol = own && sources.proxy_protocol();
        cli::healthcheck(&server, server.certfile.as_deref(), proxy_protocol)
    });
    asked.map_or_else(|reason| failed(reason, 1), |()| ExitCode::SUCCESS)
}

/// The server that a command is about: the one that is named, else the one that is configured.
fn running(sources: &Sources) -> Result<cli::server::Server, String> {
    match &sources.flags.url {
        Some(url) => cli::server::Server::parse(url),
        None => {
            let public = sources.addresses().into_iter().find(|address| address.purpose() == Purpose::Public);
            let server = public.map(|address| cli::server::Server::at(&address, sources.certfile()));
            server.ok_or_else(|| "nothing is bound: name the server's address".to_owned())
        }
    }
}

fn chat(sources: &Sources) -> ExitCode {
    let key = sources.environment.iter().find(|(name, _)| name == cli::chat::KEY_VARIABLE);
    let key = key.map(|(_, value)| value.to_string_lossy());
    let talked = running(sources).and_then(|server| cli::chat::run(server, key.as_deref()));
    talked.unwrap_or_else(|reason| failed(reason, 1))
}

/// With an address it asks the server there too; without one it looks at the configuration alone.
fn audit(sources: &Sources) -> ExitCode {
    let server = match sources.flags.url.as_deref().map(cli::server::Server::parse).transpose() {
        Ok(server) => server,
        Err(reason) => return failed(reason, 1),
    };
    let mut problems = Problems::default();
    let raw = sources.raw(&mut problems);
    let written = settings::by_key("model").and_then(|setting| raw.get(setting).texts.first().cloned());
    let model = written.map(std::path::PathBuf::from).or_else(|| config::installed_model(&raw));
    let audit = cli::audit::Audit {
        raw: &raw,
        errors: problems.errors(),
        model: model.as_deref(),
        server: server.as_ref(),
        try_limit: sources.flags.try_limit,
    };
    cli::audit::report(&audit.findings(), sources.flags.json)
}

fn key(wish: Wish, sources: &Sources) -> ExitCode {
    let Some(path) = sources.keys_file() else {
        return failed("set API_KEYS_FILE (or --api-keys-file) to the file that holds the keys", EXIT_CONFIG);
    };
    let given = &sources.flags.key;
    let done = match wish {
        Wish::KeyNew => {
            let (days, quota) = (given.expires_days, given.quota.as_deref());
            cli::key::new(&path, &given.name, days, quota, sources.identity())
        }
        Wish::KeyRevoke => cli::key::revoke(&path, &given.id),
        _ => cli::key::list(&path),
    };
    done.map_or_else(|reason| failed(reason, 1), |()| ExitCode::SUCCESS)
}

fn redact(sources: &Sources) -> ExitCode {
    let redactor = log::redact::Redactor::new(&sources.secret_patterns());
    let filtered = redactor.and_then(|redactor| {
        log::redact::filter(&redactor, std::io::stdin().lock(), std::io::stdout().lock())
            .map_err(|error| error.to_string())
    });
    filtered.map_or_else(|reason| failed(reason, 1), |()| ExitCode::SUCCESS)
}

fn sessions(sources: &Sources, wish: config::args::Sessions) -> ExitCode {
    let Some(plan) = loaded(sources) else { return ExitCode::from(EXIT_CONFIG) };
    let done = cli::sessions::run(wish, &plan.master.worker.store, &mut std::io::stdout().lock());
    done.map_or_else(|reason| failed(reason, 1), |()| ExitCode::SUCCESS)
}

fn logs(sources: &Sources) -> ExitCode {
    reading(sources)
        .and_then(|reading| cli::logs::run(&reading, std::io::BufWriter::new(std::io::stdout().lock())))
        .map_or_else(|reason| failed(reason, 1), |()| ExitCode::SUCCESS)
}

fn reading(sources: &Sources) -> Result<cli::logs::Reading, String> {
    let option = |name: &str| sources.flags.reading.get(name).map(String::as_str);
    let mut filter = cli::logs::Filter { request: option("request").map(str::to_owned), ..Default::default() };
    filter.since = option("since").map(cli::logs::since).transpose()?;
    if let Some(name) = option("level") {
        let level = cli::logs::severity(name);
        filter.level_max = level.ok_or_else(|| format!("--level {name:?}: write error, warning, info or debug"))?;
    }
    let colour = match option("color") {
        None | Some("auto") => std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        Some("always") => true,
        Some("never") => false,
        Some(other) => return Err(format!("--color {other:?}: write always, never or auto")),
    };
    Ok(cli::logs::Reading { files: sources.log_files(), filter, follow: sources.flags.follow, colour })
}

fn migrate(sources: &Sources) -> ExitCode {
    let Some(plan) = loaded(sources) else { return ExitCode::from(EXIT_CONFIG) };
    match chat::store::migrate(&plan.master.worker.store) {
        Ok(version) => {
            println!("{}: schema {version}", plan.master.worker.store.place);
            ExitCode::SUCCESS
        }
        Err(error) => failed(error, 1),
    }
}

/// The file that this program was started from, by the name that was used: an upgrade starts what that name stands for
/// by then.
fn program(environment: &[(std::ffi::OsString, std::ffi::OsString)]) -> PathBuf {
    let name = PathBuf::from(std::env::args_os().next().unwrap_or_default());
    let named = if name.components().count() > 1 {
        std::path::absolute(&name).ok()
    } else {
        let paths = environment.iter().find(|(key, _)| key == "PATH").map(|(_, paths)| paths);
        paths.and_then(|paths| std::env::split_paths(paths).map(|path| path.join(&name)).find(|path| path.is_file()))
    };
    named.or_else(|| std::env::current_exe().ok()).unwrap_or(name)
}

fn serve(sources: &mut Sources, program: PathBuf) -> ExitCode {
    let engine_socket = match listener::private_socket() {
        Ok(socket) => socket,
        Err(error) => return failed(error, 1),
    };
    sources.engine_socket = config::plan::abstract_name(&engine_socket).unwrap_or_default();
    let Some(plan) = loaded(sources) else { return ExitCode::from(EXIT_CONFIG) };
    if let Some(directory) = &plan.chdir
        && let Err(error) = std::env::set_current_dir(directory)
    {
        return failed(format!("{} cannot be entered: {error}", directory.display()), EXIT_CONFIG);
    }
    let _ = sys::process::no_core();
    plan.mended.iter().for_each(|(name, value)| sys::env::set(name, value));
    let listeners = match bind(&plan) {
        Ok(listeners) => listeners,
        Err(code) => return code,
    };
    let pidfile = plan.pidfile.clone();
    if let Some(path) = &pidfile
        && let Err(error) = write_pidfile(path)
    {
        return failed(format!("{} cannot be written: {error}", path.display()), 1);
    }
    let code = run_master(plan, listeners, engine_socket, sources.clone(), program);
    if let Some(path) = &pidfile {
        remove_pidfile(path);
    }
    code
}

/// Shows a running master that this program could take its place.
fn prove(parcel: Result<Parcel, String>) -> ExitCode {
    let proven = parcel.and_then(|parcel| {
        let plan = handed_over(&parcel)?.1;
        handover::proof::run(&parcel, plan.master)
    });
    match (handover::proof::tell(&proven), proven) {
        (Ok(()), Ok(())) => ExitCode::SUCCESS,
        // The master says it, with the rest.
        (Ok(()), Err(_)) => ExitCode::FAILURE,
        (Err(reason), _) => failed(reason, 2),
    }
}

/// Goes on in the place of a former program; where that cannot be, the former one does.
fn resume(parcel: Result<Parcel, String>) -> ExitCode {
    sys::process::name("chatcorn");
    let parcel = match parcel {
        Ok(parcel) => parcel,
        Err(reason) => return failed(reason, 1),
    };
    let resumed = handed_over(&parcel).and_then(|(sources, plan)| {
        plan.mended.iter().for_each(|(name, value)| sys::env::set(name, value));
        let pidfile = plan.pidfile.clone();
        let master = handover::resume(plan.master, &parcel, loader(sources)).map_err(|error| error.to_string())?;
        Ok((pidfile, master))
    });
    match resumed {
        Err(reason) => failed(handover::give_back(parcel, &reason), 1),
        Ok((pidfile, master)) => {
            drop(parcel);
            let ended = master.go_on();
            if let Some(path) = &pidfile {
                remove_pidfile(path);
            }
            ended.map_or_else(|error| failed(error, 1), |code| ExitCode::from(code as u8))
        }
    }
}

/// The configuration, read as the server that hands over was started.
fn handed_over(parcel: &Parcel) -> Result<(Sources, Plan), String> {
    let origin = &parcel.origin;
    let (_, flags) = args::parse(origin.arguments.iter().cloned()).map_err(|usage| usage.to_string())?;
    let engine_socket = parcel.engine_socket_name();
    let sources = Sources { flags, environment: origin.environment.clone(), engine_socket };
    match sources.load() {
        (Some(plan), _) => Ok((sources, plan)),
        (None, problems) => Err(problems.errors().join("; ")),
    }
}

fn loader(sources: Sources) -> master::Load {
    Box::new(move || match sources.load() {
        (Some(plan), _) => Ok(plan.master),
        (None, problems) => Err(problems.errors().join("; ")),
    })
}

fn run_master(
    plan: Plan,
    listeners: Vec<Listener>,
    engine_socket: socket2::Socket,
    sources: Sources,
    program: PathBuf,
) -> ExitCode {
    let run = || {
        let board = board::Board::create()?;
        board.set_engine_state(master::engine_expected(&plan.master));
        let origin = Origin {
            arguments: std::env::args_os().collect(),
            environment: sources.environment.clone(),
            shown: sys::env::read(),
            program,
        };
        master::run(plan.master, listeners, board, Some(engine_socket), loader(sources), origin)
    };
    match run() {
        Ok(code) => ExitCode::from(code as u8),
        Err(error) => failed(error, 1),
    }
}

fn loaded(sources: &Sources) -> Option<Plan> {
    let (plan, problems) = sources.load();
    if plan.is_none() {
        eprint!("{problems}");
    }
    plan
}

fn bind(plan: &Plan) -> Result<Vec<Listener>, ExitCode> {
    let wanted = &plan.master.listen;
    let bind = |address| bind_when_free(wanted, address);
    wanted.addresses.iter().map(bind).collect::<Result<Vec<_>, _>>().map_err(|error| {
        let code = if error.in_use() { EXIT_ADDRESS_IN_USE } else { 1 };
        failed(error, code)
    })
}

/// The children of a master that was killed hold its sockets until they have heard of it: they get so long.
const PREDECESSOR_LEAVES: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

fn bind_when_free(wanted: &Wanted, address: &Address) -> Result<Listener, BindError> {
    let end = sys::clock::monotonic() + PREDECESSOR_LEAVES;
    loop {
        match wanted.bind(address) {
            Err(error) if error.in_use() && sys::clock::monotonic() < end => std::thread::park_timeout(LOOK_AGAIN),
            bound => return bound,
        }
    }
}

/// Through a temporary name, so that nobody reads half of it.
fn write_pidfile(path: &Path) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, format!("{}\n", std::process::id()))?;
    std::fs::rename(temporary, path)
}

/// Only our own: who heard that this server stops may have started the next one.
fn remove_pidfile(path: &Path) {
    if std::fs::read_to_string(path).is_ok_and(|text| text.trim() == std::process::id().to_string()) {
        let _ = std::fs::remove_file(path);
    }
}

fn failed(reason: impl std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("chatcorn: {reason}");
    ExitCode::from(code)
}
