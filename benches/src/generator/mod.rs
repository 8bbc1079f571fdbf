//! An open-loop generator: many guests on one thread, each of which sends so many frames a second, whether or not anything comes
//! back, or as many as its ring takes.
//!
//! | module | what lives there |
//! |---|---|
//! | [`guest`] | a guest: `ringway-testbed`'s front end, and packed rings that are fast because they never change |
//! | [`ring`] | those rings |
//! | [`pattern`], [`colliding`] | what is in the frames: a few flows, many, or what an attacker would send |
//! | [`pace`] | how many are due |
//!
//! What is due and finds no room is lost: so a real guest loses what its switch does not take in time. What is not due
//! because somebody else had the CPU is not offered at all, and is not held against the switch.

mod colliding;
pub(crate) mod guest;
pub(crate) mod pace;
pub(crate) mod pattern;
mod ring;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use ringway::cpu::timestamp;
use ringway_testbed::driver::Listener;

use self::guest::{Counts, Guest, Shape};
use self::pace::{Pace, Rate};
use self::pattern::Pattern;
use crate::interrupt;

/// Rounds between two looks at whether somebody wants to stop.
const ROUNDS: u32 = 4096;

/// What one guest sends.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Number of the guest.
    pub(crate) guest: usize,
    pub(crate) pattern: Pattern,
    pub(crate) rate: Rate,
}

/// Sockets at which guests wait for their switch.
pub(crate) struct Sockets {
    listeners: Vec<Listener>,
    paths: Vec<PathBuf>,
}

impl Sockets {
    /// `guest0` and on, in this directory.
    pub(crate) fn listen(directory: &Path, guests: usize) -> Result<Self> {
        let paths: Vec<_> = (0..guests).map(|number| directory.join(format!("guest{number}"))).collect();
        let listeners = paths.iter().map(|path| Listener::bind(path)).collect::<io::Result<_>>()?;
        Ok(Self { listeners, paths })
    }

    /// Where they are.
    pub(crate) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }
}

/// Guests that are connected.
pub(crate) struct Generator {
    guests: Vec<Guest>,
    tsc_hz: f64,
}

impl Generator {
    /// Waits until the switch has connected to each socket.
    pub(crate) fn connect(sockets: &Sockets, shape: Shape, tsc_hz: f64) -> Result<Self> {
        let plug = |(number, listener): (usize, &Listener)| {
            Guest::plug(listener, number, shape).with_context(|| format!("guest {number}"))
        };
        let guests = sockets.listeners.iter().enumerate().map(plug).collect::<Result<_>>()?;
        Ok(Self { guests, tsc_hz })
    }

    /// Has guests send for so long, of which what happens after `warm_up` counts. Those that send nothing only receive.
    /// What each guest counted.
    pub(crate) fn run(&mut self, streams: &mut [Stream], warm_up: Duration, measured: Duration) -> Result<Vec<Counts>> {
        let Self { guests, tsc_hz } = self;
        let ticks = |duration: Duration| (duration.as_secs_f64() * *tsc_hz) as u64;
        for stream in &*streams {
            guests[stream.guest].prepare(&stream.pattern);
        }
        let begun = timestamp();
        let mut paces: Vec<_> = streams.iter().map(|stream| Pace::new(stream.rate, *tsc_hz, begun)).collect();
        let mut counts = Vec::new();
        for (duration, counted) in [(warm_up, false), (measured, true)] {
            let (begun, long) = (timestamp(), ticks(duration));
            let mut now = begun;
            guests.iter_mut().for_each(|guest| guest.counts = Counts::default());
            while now - begun < long {
                interrupt::check()?;
                for _ in 0..ROUNDS {
                    now = timestamp();
                    if now - begun >= long {
                        break;
                    }
                    for (stream, pace) in streams.iter_mut().zip(&mut paces) {
                        guests[stream.guest].send(&mut stream.pattern, pace, now);
                    }
                    guests.iter_mut().for_each(Guest::receive);
                }
            }
            if counted {
                let seconds = (now - begun) as f64 / *tsc_hz;
                counts = guests.iter().map(|guest| Counts { seconds, ..guest.counts }).collect();
            }
        }
        self.settle();
        Ok(counts)
    }

    /// Has a guest send one frame, and waits until the switch has taken it.
    pub(crate) fn say(&mut self, guest: usize, addresses: [u8; 12]) {
        let mut pattern = Pattern::fixed(addresses);
        self.guests[guest].prepare(&pattern);
        self.guests[guest].send_now(&mut pattern, 1);
        self.settle();
    }

    /// Waits, for a while, until everything that was sent was taken, and takes what comes.
    fn settle(&mut self) {
        let (begun, long) = (timestamp(), (self.tsc_hz / 20.0) as u64);
        while timestamp() - begun < long {
            self.guests.iter_mut().for_each(Guest::receive);
            if self.guests.iter_mut().all(Guest::is_idle) {
                break;
            }
        }
        self.guests.iter_mut().for_each(Guest::receive);
    }
}
