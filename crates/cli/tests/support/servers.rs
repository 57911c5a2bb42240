//! Real servers from other people, each in a folder of its own on a free port: OpenSSH, PostgreSQL, Redis, nginx.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::net::free_port;
use super::program::{Program, command, find, output_of};

const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A command for a program that [`find`] knows, behind one that runs commands.
fn program_in(prefix: &[&str], program: &str) -> Command {
    let path = find(program).unwrap_or_else(|| panic!("{program} is not installed"));
    match prefix {
        [] => Command::new(path),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(path);
            command
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// OpenSSH's server, with a key that lets the user of the tests in.
pub(crate) struct Sshd {
    pub(crate) port: u16,
    pub(crate) folder: TempDir,
    _program: Program,
}

impl Sshd {
    pub(crate) fn start() -> Sshd {
        Sshd::start_in(&[], LOCALHOST, free_port())
    }

    pub(crate) fn start_in(prefix: &[&str], address: IpAddr, port: u16) -> Sshd {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        for key in ["host_key", "user_key"] {
            output_of(command("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]));
        }
        fs::copy(at("user_key.pub"), at("authorized_keys")).unwrap();
        let host_key = fs::read_to_string(at("host_key.pub")).unwrap();
        fs::write(at("known_hosts"), format!("home {host_key}")).unwrap();
        let config = format!(
            "ListenAddress {address}:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
             StrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             Subsystem sftp internal-sftp\nMaxStartups 100\n",
            at("host_key"),
            at("authorized_keys")
        );
        fs::write(at("sshd_config"), config).unwrap();
        if is_root() {
            // Where it locks itself up; the system makes it when it starts its own.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let mut sshd = program_in(prefix, "sshd");
        sshd.args(["-D", "-e", "-f", &at("sshd_config")]);
        let program = Program::start(sshd);
        program.line("sshd to listen", |line| line.contains("Server listening on"));
        Sshd { port, folder, _program: program }
    }

    /// `ssh` or `scp` with what each needs to trust this server and nothing else. It knows the server by its key, whatever
    /// the address.
    pub(crate) fn client(
        &self,
        prefix: &[&str],
        program: &str,
        port_option: &str,
        port: u16,
    ) -> Command {
        let mut client = program_in(prefix, program);
        let at = |name: &str| self.folder.path().join(name);
        client.arg("-F").arg("none").arg("-i").arg(at("user_key"));
        client.args([port_option, &port.to_string()]);
        for option in [
            "HostKeyAlias=home",
            "StrictHostKeyChecking=yes",
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "ConnectTimeout=20",
            &format!("UserKnownHostsFile={}", at("known_hosts").display()),
        ] {
            client.args(["-o", option]);
        }
        client
    }

    /// The user that the key lets in: whoever runs the tests.
    pub(crate) fn user() -> String {
        output_of(command("id", &["-un"])).trim().to_owned()
    }
}

/// PostgreSQL with an empty database.
pub(crate) struct Postgres {
    pub(crate) port: u16,
    _program: Program,
    _folder: TempDir,
}

impl Postgres {
    pub(crate) fn start() -> Postgres {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data").display().to_string();
        // It does not run as root.
        let mut prefix = Vec::new();
        if is_root() {
            output_of(command("chown", &["postgres:", &folder.path().display().to_string()]));
            prefix = vec!["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"];
        }
        let mut initdb = program_in(&prefix, "initdb");
        initdb.args([
            "-D",
            &data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "--no-sync",
            "--no-instructions",
        ]);
        initdb.current_dir(folder.path());
        output_of(initdb);
        let port = free_port();
        let mut postgres = program_in(&prefix, "postgres");
        postgres.current_dir(folder.path()).args(["-D", &data, "-p", &port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "shared_buffers=16MB",
        ] {
            postgres.args(["-c", setting]);
        }
        // SIGINT: end now, whoever is connected.
        let program = Program::start(postgres).with_farewell(Signal::INT);
        program.line("postgres to be ready", |line| line.contains("ready to accept connections"));
        Postgres { port, _program: program, _folder: folder }
    }

    /// One of its client programs, for the server at this port.
    pub(crate) fn client(program: &str, port: u16, args: &[&str]) -> Command {
        let mut client = program_in(&[], program);
        client.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres"]).args(args);
        client
    }
}

/// Redis that keeps nothing.
pub(crate) struct Redis {
    pub(crate) port: u16,
    _program: Program,
    _folder: TempDir,
}

impl Redis {
    pub(crate) fn start() -> Redis {
        let (folder, port) = (TempDir::new().unwrap(), free_port());
        let mut redis = program_in(&[], "redis-server");
        redis.current_dir(folder.path()).args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        redis.args(["--save", "", "--appendonly", "no"]);
        let program = Program::start(redis);
        program.line("redis to be ready", |line| line.contains("Ready to accept connections"));
        Redis { port, _program: program, _folder: folder }
    }
}

/// nginx that serves the files of a folder and takes uploads under `/up/`.
pub(crate) struct Nginx {
    pub(crate) port: u16,
    folder: TempDir,
    _program: Program,
}

impl Nginx {
    pub(crate) fn start() -> Nginx {
        Nginx::start_in(&[], LOCALHOST, free_port())
    }

    pub(crate) fn start_in(prefix: &[&str], address: IpAddr, port: u16) -> Nginx {
        let folder = TempDir::new().unwrap();
        let here = folder.path().display();
        fs::create_dir_all(folder.path().join("files/up")).unwrap();
        let user = if is_root() { "user root;" } else { "" };
        let config = format!(
            "daemon off; worker_processes 1; pid {here}/pid; error_log stderr notice; {user}\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n\
               access_log off; sendfile on; client_max_body_size 0;\n\
               client_body_temp_path {here}/t1; proxy_temp_path {here}/t2; fastcgi_temp_path {here}/t3;\n\
               uwsgi_temp_path {here}/t4; scgi_temp_path {here}/t5;\n\
               server {{ listen {address}:{port}; root {here}/files; location /up/ {{ dav_methods PUT; }} }}\n\
             }}\n"
        );
        let config_path = folder.path().join("nginx.conf");
        fs::write(&config_path, config).unwrap();
        let mut nginx = program_in(prefix, "nginx");
        nginx.arg("-p").arg(folder.path()).arg("-c").arg(&config_path);
        nginx.args(["-e", "stderr"]);
        let program = Program::start(nginx);
        program.line("nginx to start its worker", |line| line.contains("start worker process "));
        Nginx { port, folder, _program: program }
    }

    /// Where a file that it serves lies.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("files").join(name)
    }

    /// Puts a file on the air.
    pub(crate) fn put(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, contents).unwrap();
        path
    }
}

/// A text of a path.
pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}
