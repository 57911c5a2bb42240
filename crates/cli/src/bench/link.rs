//! `relayserver bench link`: a long line between two TUN devices, for where the kernel has no netem. Packets wait for the line, take
//! as long as their length takes at its rate, are under way for a while, and some are lost.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::args::LinkArgs;
use crate::exit::Exit;

/// No packet of a TUN device is longer.
const PACKET_MAX: usize = 65_536;

/// Carries packets between the devices that are standard input and standard output, until one of them is gone.
pub(super) async fn run(args: &LinkArgs) -> io::Result<Exit> {
    let one = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let other = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let (gone, mut first_gone) = mpsc::channel(4);
    for (seed, from, to) in [(0, &one, &other), (1, &other, &one)] {
        let line = Line::new(args, args.seed.wrapping_add(seed));
        let (entering, leaving) = channel();
        let (source, sink) = (from.try_clone()?, to.try_clone()?);
        let at_end = gone.clone();
        thread::Builder::new().spawn(move || {
            let _told = at_end.blocking_send(take_in(source, line, &entering));
        })?;
        let at_end = gone.clone();
        thread::Builder::new().spawn(move || {
            let _told = at_end.blocking_send(let_out(sink, &leaving));
        })?;
    }
    match first_gone.recv().await {
        Some(Err(error)) => Err(error),
        Some(Ok(())) | None => Ok(Exit::Success),
    }
}

/// A packet, and when it is at the other end.
type UnderWay = (Instant, Vec<u8>);

fn take_in(mut source: File, mut line: Line, entering: &Sender<UnderWay>) -> io::Result<()> {
    let mut packet = vec![0; PACKET_MAX];
    loop {
        let len = source.read(&mut packet)?;
        let Some(read) = packet.get(..len).filter(|read| !read.is_empty()) else {
            return Ok(());
        };
        if let Some(arrives) = line.enter(len, Instant::now())
            && entering.send((arrives, read.to_vec())).is_err()
        {
            return Ok(());
        }
    }
}

fn let_out(mut sink: File, leaving: &Receiver<UnderWay>) -> io::Result<()> {
    for (arrives, packet) in leaving {
        thread::sleep(arrives.saturating_duration_since(Instant::now()));
        // All of a packet is written at once.
        sink.write_all(&packet)?;
    }
    Ok(())
}

/// One direction of the line.
struct Line {
    delay: Duration,
    bytes_per_second: f64,
    loss: f64,
    queue_max: Duration,
    /// When the last packet that entered has left for the other end.
    free_at: Option<Instant>,
    chance: fastrand::Rng,
}

impl Line {
    fn new(args: &LinkArgs, seed: u64) -> Line {
        let bytes_per_second = args.mbit * 1e6 / 8.0;
        Line {
            delay: args.delay,
            bytes_per_second,
            loss: args.loss / 100.0,
            queue_max: Duration::from_secs_f64(args.queue as f64 / bytes_per_second),
            free_at: None,
            chance: fastrand::Rng::with_seed(seed),
        }
    }

    /// When a packet of `len` bytes that comes at `now` is at the other end; `None` where it is lost, by chance or because the queue
    /// is full.
    fn enter(&mut self, len: usize, now: Instant) -> Option<Instant> {
        let begins = self.free_at.map_or(now, |free_at| free_at.max(now));
        let takes = Duration::from_secs_f64(len as f64 / self.bytes_per_second);
        if begins > now + self.queue_max || self.chance.f64() < self.loss {
            return None;
        }
        self.free_at = Some(begins + takes);
        Some(begins + takes + self.delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(loss: f64, queue: usize) -> Line {
        let delay = Duration::from_millis(25);
        // A byte takes a microsecond.
        Line::new(&LinkArgs { delay, mbit: 8.0, loss, queue, seed: 7 }, 7)
    }

    /// Whole microseconds, which a length over a rate is not always.
    fn micros(arrives: Option<Instant>, now: Instant) -> Option<u128> {
        arrives.map(|at| (at - now + Duration::from_nanos(500)).as_micros())
    }

    #[test]
    fn a_packet_takes_its_length_and_the_delay() {
        let now = Instant::now();
        let mut line = line(0.0, 10_000);
        assert_eq!(micros(line.enter(1000, now), now), Some(26_000));
        // The next waits for the line, and one that comes later does not.
        assert_eq!(micros(line.enter(500, now), now), Some(26_500));
        let later = now + Duration::from_millis(10);
        assert_eq!(micros(line.enter(500, later), later), Some(25_500));
    }

    #[test]
    fn what_the_queue_has_no_room_for_is_lost_and_the_line_goes_on() {
        let now = Instant::now();
        let mut line = line(0.0, 2000);
        let arrived: Vec<bool> = (0..5).map(|_| line.enter(1000, now).is_some()).collect();
        assert_eq!(arrived, [true, true, true, false, false]);
        let later = now + Duration::from_millis(1);
        assert!(line.enter(1000, later).is_some());
        assert!(line.enter(1000, later).is_none());
    }

    #[test]
    fn so_many_are_lost_by_chance_and_the_same_ones_again() {
        let lost = || -> Vec<bool> {
            let now = Instant::now();
            let mut line = line(1.0, usize::MAX);
            (0..100_000).map(|_| line.enter(1, now).is_none()).collect()
        };
        let first = lost();
        let count = first.iter().filter(|lost| **lost).count();
        assert!((800..1200).contains(&count), "{count}");
        assert_eq!(first, lost());
    }

    #[test]
    fn nothing_is_lost_of_a_line_without_loss() {
        let now = Instant::now();
        let mut line = line(0.0, usize::MAX);
        assert!((0..100_000).all(|_| line.enter(1, now).is_some()));
    }
}
