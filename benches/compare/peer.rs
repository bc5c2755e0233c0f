//! The programs that are compared, and how each is told to do a job.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tls::Identity;
use crate::workload::{Load, Profile, Workload};

mod caddy;
mod envoy;
mod haproxy;
mod nginx;
mod ours;

/// One contender of the comparison.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Name in the report.
    pub(crate) name: String,
    /// What it is.
    pub(crate) kind: Kind,
    /// Its program; the folder of them for [`Kind::Ours`], empty for [`Kind::Direct`].
    pub(crate) path: PathBuf,
    /// What the program says its version is.
    pub(crate) version: String,
}

/// The kinds of contenders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No proxy; the backend runs on the proxy's core.
    Direct,
    /// The programs of this project.
    Ours,
    /// HAProxy as it is.
    Haproxy,
    /// HAProxy told to splice plain TCP.
    HaproxySplice,
    /// nginx with its stream module.
    Nginx,
    /// Envoy.
    Envoy,
    /// Caddy, for HTTP only.
    Caddy,
}

/// One task for a proxy.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// What to do.
    pub(crate) profile: Profile,
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// A port for an admin interface that cannot be turned off.
    pub(crate) admin: SocketAddr,
    /// Where to forward to: one address, or the ten slow servers.
    pub(crate) backends: &'a [SocketAddr],
    /// Consul with these backends in it, for who wants it.
    pub(crate) catalog: Option<SocketAddr>,
    /// Certificate to show, authority to trust.
    pub(crate) identity: &'a Identity,
    /// A folder for files.
    pub(crate) dir: &'a Path,
    /// How many descriptors a process may open.
    pub(crate) descriptors: u64,
}

impl Job<'_> {
    /// Writes a file and returns its path as text.
    fn write(&self, name: &str, text: &str) -> io::Result<String> {
        let path = self.dir.join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    }
}

/// How to start a program.
#[derive(Debug, Default)]
pub(crate) struct Launch {
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// Its variables, beside those there are.
    pub(crate) env: Vec<(&'static str, String)>,
}

impl Launch {
    fn args<const N: usize>(args: [&str; N]) -> Self {
        Self { args: args.map(String::from).into(), env: Vec::new() }
    }
}

impl Peer {
    /// Whether it takes part in a workload at all.
    pub(crate) fn can(&self, workload: &Workload) -> bool {
        match self.kind {
            // Without a proxy there is nothing to originate, to balance, or to hold memory.
            Kind::Direct => {
                let jobs = [Profile::Tcp, Profile::Terminate, Profile::Http, Profile::Https];
                let loads = !matches!(workload.load, Load::Idle | Load::Streams { .. });
                jobs.contains(&workload.profile) && loads
            }
            // Splicing changes plain TCP only. Its pipes take descriptors, too many for the idle workloads.
            Kind::HaproxySplice => workload.profile == Profile::Tcp && workload.load != Load::Idle,
            Kind::Caddy => workload.profile.is_http(),
            _ => true,
        }
    }

    /// Whether it counts when the best peer is looked for.
    pub(crate) fn is_rival(&self) -> bool {
        !matches!(self.kind, Kind::Direct | Kind::Ours)
    }

    /// The program for a job.
    pub(crate) fn program(&self, profile: Profile) -> PathBuf {
        match self.kind {
            Kind::Ours => self.path.join(ours::program(profile)),
            _ => self.path.clone(),
        }
    }

    /// Whether it learns from Consul what to do.
    pub(crate) fn wants_catalog(&self, profile: Profile) -> bool {
        self.kind == Kind::Ours && matches!(profile, Profile::Https | Profile::HttpsBalance)
    }

    /// Writes the configuration.
    pub(crate) fn configure(&self, job: &Job<'_>) -> io::Result<Launch> {
        match self.kind {
            Kind::Direct => Ok(Launch::default()),
            Kind::Ours => ours::configure(job),
            Kind::Haproxy => haproxy::configure(job, haproxy::Splice::Off),
            Kind::HaproxySplice => haproxy::configure(job, haproxy::Splice::On),
            Kind::Nginx => nginx::configure(job, &self.path),
            Kind::Envoy => envoy::configure(job),
            Kind::Caddy => caddy::configure(job),
        }
    }
}

/// Who takes part, and why others do not.
#[derive(Debug, Default)]
pub(crate) struct Field {
    /// The contenders, ours first.
    pub(crate) peers: Vec<Peer>,
    /// Name and reason of those left out.
    pub(crate) missing: Vec<(String, String)>,
}

/// Finds the programs. `ours` are names and paths; `wanted` names the peers to keep, all if empty.
pub(crate) fn find(ours: &[(String, PathBuf)], wanted: &[String]) -> Result<Field, String> {
    if let Some(unknown) = wanted.iter().find(|want| !KNOWN.iter().any(|(name, ..)| *name == want.as_str())) {
        let known: Vec<_> = KNOWN.iter().map(|(name, ..)| *name).collect();
        return Err(format!("no peer is called {unknown}; there are {}", known.join(", ")));
    }
    let mut field = Field::default();
    for (name, path) in ours {
        match path.canonicalize() {
            Ok(path) => {
                let version = format!("the programs in {}", path.display());
                field.peers.push(Peer { name: name.clone(), kind: Kind::Ours, path, version });
            }
            Err(error) => field.missing.push((name.clone(), format!("{}: {error}", path.display()))),
        }
    }
    for (name, kind, program, version) in KNOWN {
        if !wanted.is_empty() && !wanted.iter().any(|want| want == name) {
            continue;
        }
        if *kind == Kind::Direct {
            let version = String::from("no proxy, backend on the proxy's core");
            field.peers.push(Peer { name: (*name).into(), kind: *kind, path: PathBuf::new(), version });
            continue;
        }
        match on_path(program) {
            Some(path) if *kind == Kind::Nginx => match nginx::stream_support(&path) {
                Ok(()) => field.add(name, *kind, path, version),
                Err(reason) => field.missing.push(((*name).into(), reason)),
            },
            Some(path) => field.add(name, *kind, path, version),
            None => field.missing.push(((*name).into(), format!("{program} is not on PATH or in /usr/sbin"))),
        }
    }
    Ok(field)
}

impl Field {
    fn add(&mut self, name: &str, kind: Kind, path: PathBuf, version: &str) {
        let version = self::version(&path, version);
        self.peers.push(Peer { name: name.into(), kind, path, version });
    }
}

/// Every peer that this program can drive.
pub(crate) const KNOWN: &[(&str, Kind, &str, &str)] = &[
    ("haproxy", Kind::Haproxy, "haproxy", "-v"),
    ("haproxy-splice", Kind::HaproxySplice, "haproxy", "-v"),
    ("nginx", Kind::Nginx, "nginx", "-v"),
    ("envoy", Kind::Envoy, "envoy", "--version"),
    ("caddy", Kind::Caddy, "caddy", "version"),
    ("direct", Kind::Direct, "", ""),
];

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Distributions put servers where users' PATHs do not look.
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    dirs.map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// The first line that a program prints about its version, on either stream.
fn version(program: &Path, argument: &str) -> String {
    let Ok(output) = Command::new(program).arg(argument).output() else {
        return "unknown version".into();
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("unknown version")
        .trim()
        .chars()
        .take(100)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_program_is_left_out_with_its_reason() {
        let ours = [("ours".to_owned(), PathBuf::from("/nonexistent/release"))];

        let field = find(&ours, &["direct".to_owned()]).unwrap();

        assert_eq!(field.missing.len(), 1);
        assert!(field.missing[0].1.contains("/nonexistent/release"));
        assert_eq!(field.peers.len(), 1);
    }

    #[test]
    fn unknown_peer_is_an_error() {
        assert!(find(&[], &["hamster".to_owned()]).unwrap_err().contains("hamster"));
    }
}
