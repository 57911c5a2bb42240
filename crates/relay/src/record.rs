//! Writes down what the book is told and what it answers, in the form that `relayserver_core::record` replays.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use relayserver_core::record::Header;
use relayserver_core::{Handles, Input, Output, Time};
use tracing::warn;

/// An open recording. Written out when flushed or dropped; a file that cannot be written ends it with one warning, never the relay.
pub(crate) struct Recorder {
    /// `None` once writing failed.
    file: Option<BufWriter<File>>,
}

impl Recorder {
    /// Starts a recording at `path`, over whatever stood there.
    pub(crate) fn create(path: &Path, header: &Header) -> io::Result<Recorder> {
        let mut file = BufWriter::new(File::create(path)?);
        writeln!(file, "{header}")?;
        Ok(Recorder { file: Some(file) })
    }

    pub(crate) fn input<H: Handles>(&mut self, now: Time, input: &Input<H>) {
        self.write(|file| writeln!(file, "{} < {input}", now.since_start().as_nanos()));
    }

    pub(crate) fn output<H: Handles>(&mut self, now: Time, output: &Output<H>) {
        self.write(|file| writeln!(file, "{} > {output}", now.since_start().as_nanos()));
    }

    /// Hands everything to the file.
    pub(crate) fn flush(&mut self) {
        self.write(|file| file.flush());
    }

    fn write(&mut self, line: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = line(file) {
            warn!(%error, "recording ended: cannot write");
            self.file = None;
        }
    }
}
