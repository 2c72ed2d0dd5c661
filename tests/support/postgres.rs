//! A PostgreSQL server of a test's own: Debian's, as a user without rights, in a directory below the temporary one.

use super::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

static PLACES: AtomicU32 = AtomicU32::new(0);
static TEMPLATE: Mutex<Option<PathBuf>> = Mutex::new(None);

/// A running server; it ends with the test.
pub struct Postgres {
    programs: PathBuf,
    home: PathBuf,
    port: u16,
    options: Vec<String>,
    child: Option<Child>,
}

impl Postgres {
    /// Starts one with these options (`max_connections=9`). `None`, with the reason on stderr, where Debian's
    /// `postgresql` is not installed.
    pub fn start(options: &[&str]) -> Option<Postgres> {
        let Some(programs) = programs() else {
            eprintln!("skipped: there is no /usr/lib/postgresql/*/bin/postgres (apt-get install postgresql)");
            return None;
        };
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let home = std::env::temp_dir().join(format!("chatcorn-pg-{}-{number}", std::process::id()));
        let template = template(&programs);
        assert!(Command::new("cp").arg("-a").arg(template).arg(&home).status().unwrap().success());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Postgres { programs, home, port, options, child: None };
        server.start_again();
        Some(server)
    }

    /// The database `postgres` by the Unix socket, as the superuser.
    pub fn url(&self) -> String {
        format!("postgres://tests@{}/postgres", self.home.display().to_string().replace('/', "%2F") + &self.colon())
    }

    /// The same by TCP, with these parameters.
    pub fn tcp_url(&self, parameters: &str) -> String {
        format!("postgres://tests@localhost:{}/postgres?{parameters}", self.port)
    }

    fn colon(&self) -> String {
        format!(":{}", self.port)
    }

    /// Its directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// What `psql` answers, a row a line.
    pub fn sql(&self, sql: &str) -> String {
        let output = self.try_sql(sql);
        output.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    fn try_sql(&self, sql: &str) -> Result<String, String> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-XAtq", "-U", "tests", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-p", &self.port.to_string()]);
        let output = psql.arg("-h").arg(&self.home).args(["-c", sql]).output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Sends its first process a signal: INT stops it at once with a checkpoint, QUIT without one.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap();
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
    }

    /// The same to all of its processes: to stop (STOP) and go on (CONT) as a whole.
    pub fn signal_all(&self, signal: Signal) {
        let parent = self.child.as_ref().unwrap().id();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        for pid in children.split_whitespace().map(|pid| pid.parse().unwrap()).chain([parent as i32]) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Ends it by this signal and waits for its end.
    pub fn stop(&mut self, signal: Signal) {
        self.signal(signal);
        self.child.take().unwrap().wait().unwrap();
    }

    /// Starts it on the same data and port, and waits until it answers.
    pub fn start_again(&mut self) {
        // After a kill its children may still hold the shared memory for a moment: then it ends at once.
        until("the database", || {
            let ended = self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some());
            if ended {
                self.child = Some(self.spawn());
            }
            self.try_sql("SELECT 1").is_ok()
        });
    }

    fn spawn(&self) -> Child {
        let mut command = Command::new(self.programs.join("postgres"));
        command.arg("-D").arg(&self.home).arg("-k").arg(&self.home).args(["-p", &self.port.to_string()]);
        let common = ["listen_addresses=127.0.0.1", "fsync=off", "shared_buffers=16MB", "logging_collector=off"];
        for option in common.into_iter().chain(self.options.iter().map(String::as_str)) {
            command.args(["-c", option]);
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.home.join("server.log")).unwrap();
        unprivileged(&mut command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = Pid::from_raw(child.id() as i32);
            let _ = kill(pid, Signal::SIGCONT);
            let _ = kill(pid, Signal::SIGQUIT);
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let found = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    found.filter(|bin| bin.join("postgres").exists()).max()
}

/// An empty cluster, made once for all tests of this run.
fn template(programs: &Path) -> PathBuf {
    let mut template = TEMPLATE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = template.as_ref() {
        return path.clone();
    }
    let path = std::env::temp_dir().join(format!("chatcorn-pg-template-{}", nix::unistd::getuid()));
    if !path.join("made").exists() {
        let making = std::env::temp_dir().join(format!("chatcorn-pg-making-{}", std::process::id()));
        std::fs::create_dir(&making).unwrap();
        if let Some(user) = without_rights() {
            std::os::unix::fs::chown(&making, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        let mut command = Command::new(programs.join("initdb"));
        command.args(["--no-sync", "--auth=trust", "--username=tests", "--encoding=UTF8", "--locale=C", "-D"]);
        let output = unprivileged(command.arg(&making)).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        std::fs::write(making.join("made"), "").unwrap();
        // Another run may have been first.
        if std::fs::rename(&making, &path).is_err() {
            std::fs::remove_dir_all(&making).unwrap();
        }
    }
    template.insert(path).clone()
}

/// `initdb` and `postgres` refuse to run as root.
fn without_rights() -> Option<User> {
    let root = nix::unistd::getuid().is_root();
    root.then(|| User::from_name("postgres").unwrap().expect("Debian's package makes the user postgres"))
}

fn unprivileged(command: &mut Command) -> &mut Command {
    if let Some(user) = without_rights() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command.current_dir("/")
}
