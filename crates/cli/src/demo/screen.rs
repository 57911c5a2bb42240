//! What the demo shows, on standard output.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use crate::logging::wants_colour;

/// Standard output, with colour where it is wanted.
pub(super) struct Screen {
    colour: bool,
}

impl Screen {
    pub(super) fn new() -> Screen {
        Screen { colour: wants_colour(&io::stdout()) }
    }

    pub(super) fn title(&self) -> io::Result<()> {
        let picture = "client ──▶ relay ◀── host";
        self.print(&format!(
            "\n  {}  {picture}\n  {}\n\n",
            self.bold("RelayServer"),
            self.dim("The host only ever dials out; the client needs nothing but TCP.")
        ))
    }

    pub(super) fn step(&self, who: &str, did: &str, took: Duration) -> io::Result<()> {
        let took = self.dim(&format!("{:.1} ms", took.as_secs_f64() * 1e3));
        self.print(&format!("  {} {:<8} {did}  {took}\n", self.green("✓"), self.bold_padded(who)))
    }

    pub(super) fn invitation(&self, clients: SocketAddr) -> io::Result<()> {
        let (host, port) = (clients.ip(), clients.port());
        self.print(&format!(
            "\n  Open  {}\n  or    {}  {}\n\n  {}\n",
            self.bold(&format!("http://{clients}/")),
            self.bold(&format!("nc {host} {port}")),
            self.dim("and type: it comes back"),
            self.dim("Ctrl-C ends it.")
        ))
    }

    pub(super) fn leaving(&self) -> io::Result<()> {
        self.print("\n  Leaving: running sessions get a moment, another Ctrl-C ends them.\n")
    }

    pub(super) fn ended(&self) -> io::Result<()> {
        self.print("  Ended.\n")
    }

    fn print(&self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    fn bold(&self, text: &str) -> String {
        self.styled("1", text)
    }

    /// Padded before it is styled: escape sequences have no width.
    fn bold_padded(&self, text: &str) -> String {
        self.styled("1", &format!("{text:<8}"))
    }

    fn dim(&self, text: &str) -> String {
        self.styled("2", text)
    }

    fn green(&self, text: &str) -> String {
        self.styled("32", text)
    }

    fn styled(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
