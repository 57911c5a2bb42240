//! What a host serves: each service and what its sessions are handed to, as the command line or `host.toml` says.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::str::FromStr;

use relayserver::handlers::{Echo, Exec, Forward};
use relayserver::{Builder, Handler, Served, Session};
use relayserver_config::{HostFile, HostService, ServiceName, Target as FileTarget};

use crate::args::HostArgs;
use crate::bench;
use crate::demo;
use crate::watch::Watch;

/// How many data channels wait at most, unless the command line says otherwise.
const POOL_MAX: usize = 256;

/// `[SERVICE=]ADDR`, as `--forward` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForwardArg {
    service: Option<ServiceName>,
    target: Forward,
}

/// What serves a session.
#[derive(Clone, Debug)]
enum Target {
    Forward(Forward),
    Exec { exec: Exec, shown: String },
    Echo,
    Demo,
    Bench,
}

/// Every service with what serves it.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    services: BTreeMap<String, Service>,
    weight: u32,
    max_sessions: Option<u32>,
}

/// A service with its target.
#[derive(Clone, Debug)]
struct Service {
    target: Target,
    pool: RangeInclusive<usize>,
    /// Looks after its server.
    watch: Option<Watch>,
}

impl Targets {
    /// What the flags say: one target without a service's name, or several forwards, each with its own.
    pub(crate) fn of_flags(args: &HostArgs) -> Result<Targets, String> {
        let nameless = || args.service.clone().unwrap_or_else(ServiceName::default_name);
        let pool_max = args.pool_max.unwrap_or(POOL_MAX.max(args.pool_size));
        if pool_max < args.pool_size {
            let size = args.pool_size;
            return Err(format!("--pool-max {pool_max} is less than --pool-size, which is {size}"));
        }
        let pool = args.pool_size..=pool_max;
        let of =
            |services| Targets { services, weight: args.weight, max_sessions: args.max_sessions };
        let one = |target| {
            let service = Service { target, pool: pool.clone(), watch: None };
            Ok(of(BTreeMap::from([(nameless().to_string(), service)])))
        };
        if let Some((program, arguments)) = args.command.split_first() {
            let shown = program.to_string_lossy().into_owned();
            return one(Target::Exec { exec: Exec::new(program).args(arguments), shown });
        }
        if args.target.forward.is_empty() {
            return one(if args.target.demo_target {
                Target::Demo
            } else if args.target.bench_target {
                Target::Bench
            } else {
                Target::Echo
            });
        }
        let mut targets = BTreeMap::new();
        for ForwardArg { service, target } in &args.target.forward {
            let name = service.clone().unwrap_or_else(nameless).to_string();
            let watch = args.check.map(|every| Watch::new(name.clone(), target.clone(), every));
            let target = Target::Forward(target.clone());
            let service = Service { target, pool: pool.clone(), watch };
            if targets.insert(name.clone(), service).is_some() {
                return Err(format!(
                    "service {name} is given twice: say --forward SERVICE={} for one of them",
                    args.target.forward.last().map_or_else(String::new, |it| it.target.to_string())
                ));
            }
        }
        Ok(of(targets))
    }

    /// What the file says.
    pub(crate) fn of_file(file: &HostFile) -> Result<Targets, String> {
        let mut targets = BTreeMap::new();
        for (name, HostService { target, pool, check }) in &file.services {
            let mut watch = None;
            let target = match target {
                FileTarget::Echo => Target::Echo,
                FileTarget::Forward(forward) => {
                    let read = forward.to_string().parse();
                    let server: Forward =
                        read.map_err(|error| format!("service {name}: {error}"))?;
                    watch = check
                        .as_ref()
                        .map(|check| Watch::new(name.to_string(), server.clone(), check.every));
                    Target::Forward(server)
                }
                FileTarget::Exec(words) => {
                    let mut words = words.iter();
                    let program = words.next().cloned().unwrap_or_default();
                    Target::Exec { exec: Exec::new(&program).args(words), shown: program }
                }
            };
            let pool = pool.min.get()..=pool.max.get();
            targets.insert(name.to_string(), Service { target, pool, watch });
        }
        if targets.is_empty() {
            return Err(
                "the file names no service: there is nothing to serve. Add [services.default] \
                        with `forward`"
                    .to_owned(),
            );
        }
        let max_sessions =
            file.max_sessions.map(|max| u32::try_from(max.get()).unwrap_or(u32::MAX));
        Ok(Targets { services: targets, weight: file.weight.get(), max_sessions })
    }

    /// Tells a listener what to serve.
    pub(crate) fn add_to(&self, builder: Builder) -> Builder {
        let mut builder = builder.weight(self.weight);
        if let Some(max_sessions) = self.max_sessions {
            builder = builder.max_sessions(max_sessions);
        }
        let add = |builder: Builder, (name, service): (&String, &Service)| {
            builder.service_with_pool(name, service.pool.clone())
        };
        self.services.iter().fold(builder, add)
    }

    /// What looks after the servers that are to be looked after.
    pub(crate) fn watches(&self) -> Vec<Watch> {
        self.services.values().filter_map(|service| service.watch.clone()).collect()
    }

    /// Whether sessions run programs.
    pub(crate) fn runs_programs(&self) -> bool {
        self.services.values().any(|service| matches!(service.target, Target::Exec { .. }))
    }

    /// Where each service is reached, and what answers there, a line each.
    pub(crate) fn reachable(&self, served: &[Served]) -> String {
        let line = |Served { service, clients }: &Served| {
            let clients = clients.as_deref().unwrap_or("the relay");
            // A relay of version 1 knows one service, whatever its name here is.
            let named = self.services.get(service).or_else(|| self.services.values().next());
            let target = named.map_or_else(String::new, |named| format!(" -> {}", named.target));
            format!("reachable: {clients}{target}\n")
        };
        served.iter().map(line).collect()
    }
}

impl Handler for Targets {
    async fn handle(&self, session: Session) -> io::Result<()> {
        let Some(Service { target, watch, .. }) = self.services.get(session.service()).cloned()
        else {
            session.reject("service_unknown");
            return Ok(());
        };
        match target {
            Target::Forward(forward) => {
                let served = forward.handle(session).await;
                if let Some(watch) = watch.filter(|_| served.is_err()) {
                    watch.doubt();
                }
                served
            }
            Target::Exec { exec, .. } => exec.handle(session).await,
            Target::Echo => Echo.handle(session).await,
            Target::Demo => demo::target::serve(session).await,
            Target::Bench => bench::server::serve(session).await,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Forward(forward) => forward.fmt(f),
            Target::Exec { shown, .. } => f.write_str(shown),
            Target::Echo => f.write_str("echo"),
            Target::Demo => f.write_str("the demo"),
            Target::Bench => f.write_str("the benchmark"),
        }
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [service] = self.services.values().collect::<Vec<_>>().as_slice() {
            return service.target.fmt(f);
        }
        let named = |(name, service): (&String, &Service)| format!("{name}={}", service.target);
        let all: Vec<String> = self.services.iter().map(named).collect();
        f.write_str(&all.join(", "))
    }
}

impl FromStr for ForwardArg {
    type Err = String;

    fn from_str(text: &str) -> Result<ForwardArg, String> {
        let (service, target) = match text.split_once('=') {
            // A path may have one too.
            Some((service, target)) if !service.contains(['/', ':']) => (Some(service), target),
            _ => (None, text),
        };
        let service = service.map(str::parse::<ServiceName>).transpose();
        let service = service.map_err(|error| error.to_string())?;
        let target = target.parse().map_err(|error: relayserver::handlers::TargetError| {
            format!("{error}, or SERVICE= ahead of one of these")
        })?;
        Ok(ForwardArg { service, target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_may_name_its_service() {
        for (text, service, target) in [
            ("22", None, "127.0.0.1:22"),
            ("ssh=22", Some("ssh"), "127.0.0.1:22"),
            ("web-2=db.local:80", Some("web-2"), "db.local:80"),
            ("unix:/run/a=b.sock", None, "unix:/run/a=b.sock"),
            ("app=unix:/run/a=b.sock", Some("app"), "unix:/run/a=b.sock"),
        ] {
            let read: ForwardArg = text.parse().unwrap();
            let name = read.service.as_ref().map(ServiceName::as_str);
            assert_eq!((name, read.target.to_string().as_str()), (service, target));
        }
        for text in ["", "=22", "Ssh=22", "ssh=", "ssh=0", "a b=22"] {
            assert!(text.parse::<ForwardArg>().is_err(), "{text:?}");
        }
    }
}
