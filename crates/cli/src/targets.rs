//! What a host serves: each service and what its sessions are handed to, as the command line or `host.toml` says.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::str::FromStr;

use relayserver::handlers::{Echo, Exec, Forward};
use relayserver::{Builder, Handler, Served, Session};
use relayserver_config::{HostFile, HostService, ServiceName, Target as FileTarget};

use crate::args::HostArgs;
use crate::demo;

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
}

/// Every service with its target.
#[derive(Clone, Debug)]
pub(crate) struct Targets(BTreeMap<String, (Target, usize)>);

impl Targets {
    /// What the flags say: one target without a service's name, or several forwards, each with its own.
    pub(crate) fn of_flags(args: &HostArgs) -> Result<Targets, String> {
        let nameless = || args.service.clone().unwrap_or_else(ServiceName::default_name);
        let one = |target| {
            Ok(Targets(BTreeMap::from([(nameless().to_string(), (target, args.pool_size))])))
        };
        if let Some((program, arguments)) = args.command.split_first() {
            let shown = program.to_string_lossy().into_owned();
            return one(Target::Exec { exec: Exec::new(program).args(arguments), shown });
        }
        if args.target.forward.is_empty() {
            return one(if args.target.demo_target { Target::Demo } else { Target::Echo });
        }
        let mut targets = BTreeMap::new();
        for ForwardArg { service, target } in &args.target.forward {
            let name = service.clone().unwrap_or_else(nameless).to_string();
            let target = (Target::Forward(target.clone()), args.pool_size);
            if targets.insert(name.clone(), target).is_some() {
                return Err(format!(
                    "service {name} is given twice: say --forward SERVICE={} for one of them",
                    args.target.forward.last().map_or_else(String::new, |it| it.target.to_string())
                ));
            }
        }
        Ok(Targets(targets))
    }

    /// What the file says.
    pub(crate) fn of_file(file: &HostFile) -> Result<Targets, String> {
        let mut targets = BTreeMap::new();
        for (name, HostService { target, pool }) in &file.services {
            let target = match target {
                FileTarget::Echo => Target::Echo,
                FileTarget::Forward(forward) => {
                    let read = forward.to_string().parse();
                    Target::Forward(read.map_err(|error| format!("service {name}: {error}"))?)
                }
                FileTarget::Exec(words) => {
                    let mut words = words.iter();
                    let program = words.next().cloned().unwrap_or_default();
                    Target::Exec { exec: Exec::new(&program).args(words), shown: program }
                }
            };
            targets.insert(name.to_string(), (target, pool.min.get()));
        }
        if targets.is_empty() {
            return Err(
                "the file names no service: there is nothing to serve. Add [services.default] \
                        with `forward`"
                    .to_owned(),
            );
        }
        Ok(Targets(targets))
    }

    /// Tells a listener what to serve.
    pub(crate) fn add_to(&self, builder: Builder) -> Builder {
        let add = |builder: Builder, (name, (_, pool)): (&String, &(Target, usize))| {
            builder.service_with_pool(name, *pool)
        };
        self.0.iter().fold(builder, add)
    }

    /// Whether sessions run programs.
    pub(crate) fn runs_programs(&self) -> bool {
        self.0.values().any(|(target, _)| matches!(target, Target::Exec { .. }))
    }

    /// Where each service is reached, and what answers there, a line each.
    pub(crate) fn reachable(&self, served: &[Served]) -> String {
        let line = |Served { service, clients }: &Served| {
            let clients = clients.as_deref().unwrap_or("the relay");
            // A relay of version 1 knows one service, whatever its name here is.
            let named = self.0.get(service).or_else(|| self.0.values().next());
            let target = named.map_or_else(String::new, |(target, _)| format!(" -> {target}"));
            format!("reachable: {clients}{target}\n")
        };
        served.iter().map(line).collect()
    }
}

impl Handler for Targets {
    async fn handle(&self, session: Session) -> io::Result<()> {
        let target = self.0.get(session.service()).map(|(target, _)| target.clone());
        match target {
            Some(Target::Forward(forward)) => forward.handle(session).await,
            Some(Target::Exec { exec, .. }) => exec.handle(session).await,
            Some(Target::Echo) => Echo.handle(session).await,
            Some(Target::Demo) => demo::target::serve(session).await,
            None => {
                session.reject("service_unknown");
                Ok(())
            }
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
        }
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(target, _)] = self.0.values().collect::<Vec<_>>().as_slice() {
            return target.fmt(f);
        }
        let all: Vec<String> =
            self.0.iter().map(|(name, (target, _))| format!("{name}={target}")).collect();
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
