//! Network namespaces: machines that reach each other by the cables that a test lays, and by nothing else. Making them needs root.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::peers::relayserver_in;
use super::program::{Program, command, output_of, run, skip};

/// A network namespace of this test. Taken down when dropped: whatever runs inside must have ended before.
pub(crate) struct Namespace(String);

impl Namespace {
    /// `None`, and says why, where it cannot be made.
    pub(crate) fn new(role: &str) -> Option<Namespace> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            skip("network namespaces need root");
            return None;
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("relayserver-{}-{count}-{role}", std::process::id());
        let added = run(command("ip", &["netns", "add", &name]));
        if !added.status.success() {
            skip(&format!("cannot make a network namespace: {}", added.stderr.trim()));
            return None;
        }
        let namespace = Namespace(name);
        // Whatever this machine does, these do not hand packets on from one network to another.
        let still = "ip link set lo up && echo 0 > /proc/sys/net/ipv4/ip_forward";
        output_of(namespace.command("sh", &["-c", still]));
        Some(namespace)
    }

    /// What goes before a command to run it in here.
    pub(crate) fn prefix(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.0]
    }

    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut line = command("ip", &["netns", "exec", &self.0, program]);
        line.args(args);
        line
    }

    pub(crate) fn relayserver(&self, args: &[&str]) -> Program {
        Program::start(relayserver_in(&self.prefix(), args))
    }

    /// `ip WORDS` about what is in here.
    pub(crate) fn ip(&self, words: &str) -> String {
        let mut line = command("ip", &["-n", &self.0]);
        line.args(words.split(' '));
        output_of(line)
    }

    /// Lays a cable to another namespace. Each end has a name, and an address with the length of its network's prefix.
    pub(crate) fn join(&self, end: [&str; 2], other: &Namespace, other_end: [&str; 2]) {
        let [name, other_name] = [end[0], other_end[0]];
        let mut line = command("ip", &["link", "add", name, "netns", &self.0, "type", "veth"]);
        line.args(["peer", "name", other_name, "netns", &other.0]);
        output_of(line);
        for (namespace, [name, address]) in [(self, end), (other, other_end)] {
            namespace.ip(&format!("addr add {address} dev {name}"));
            namespace.ip(&format!("link set {name} up"));
        }
    }

    /// The hardware address of an end of a cable in here.
    pub(crate) fn hardware_address(&self, end: &str) -> String {
        let file = format!("/sys/class/net/{end}/address");
        output_of(self.command("cat", &[&file])).trim().to_owned()
    }

    /// A runtime whose tasks are in here. The future that it is made to block on is not: it is to spawn what is to be here.
    pub(crate) fn runtime(&self) -> tokio::runtime::Runtime {
        let here = Namespace::open(&self.0);
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().on_thread_start(move || enter(&here));
        builder.build().unwrap()
    }

    /// Does something in here, on a thread of its own.
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let here = Namespace::open(&self.0);
        let entered = || {
            enter(&here);
            act()
        };
        std::thread::scope(|scope| scope.spawn(entered).join().unwrap())
    }

    fn open(name: &str) -> File {
        File::open(Path::new("/run/netns").join(name)).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _deleted = command("ip", &["netns", "del", &self.0]).status();
    }
}

/// Moves the thread that calls this into a namespace: the sockets that it makes from now on are of that network, wherever they are
/// used, and so are the programs that it starts.
fn enter(namespace: &File) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}
