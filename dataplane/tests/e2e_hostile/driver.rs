//! The hostile driver: a process that owns real connections, one after another, and spoils everything it can say and share.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringway_testbed::driver::front_end::{Bells, request, ring};
use ringway_testbed::driver::hostile::{Random, Scribbler};
use ringway_testbed::driver::{Guest, Layout, Listener, Message, Options, Queue};
use ringway_testbed::{Process, Spawn};

/// Starts one at `socket`, whose rings have this layout; it goes on until it is dropped.
pub(crate) fn start(socket: &Path, layout: Layout) -> Process {
    let arguments = ["--exact", "driver::drives_hostilely", "--ignored", "--nocapture", "--test-threads=1"];
    let spawn = Spawn::new(std::env::current_exe().unwrap()).args(arguments).name(format!("hostile-{layout:?}"));
    let process = spawn.env("HOSTILE_SOCKET", socket).env("HOSTILE_LAYOUT", format!("{layout:?}")).start().unwrap();
    process.wait_for_line("listens", Duration::from_secs(20)).unwrap();
    process
}

#[test]
#[ignore = "a part of other tests, which start it in a process of its own"]
fn drives_hostilely() {
    let socket = std::env::var_os("HOSTILE_SOCKET").unwrap();
    let packed = std::env::var("HOSTILE_LAYOUT").unwrap() == "Packed";
    let layout = if packed { Layout::Packed } else { Layout::Split };
    let listener = Listener::bind(Path::new(&socket)).unwrap();
    println!("\nlistens");
    let mut random = Random::new(7);
    loop {
        let Ok(stream) = listener.accept() else { continue };
        let (packed, size) = (layout == Layout::Packed, 1 << random.below(9));
        let size = if packed { (size + random.below(40)) as u16 } else { size as u16 };
        let options = Options { size, pairs: 2, buffers: size.min(16), margins: true, ..Options::new(layout) };
        // Refused or cut off, whatever it was: the next one.
        if let Ok(guest) = Guest::over(stream, options) {
            let memory = guest.memory.clone();
            spoil(guest, layout, &mut random);
            assert!(memory.margins_are_whole(), "the switch writes beside the memory that it was given");
        }
    }
}

/// Scribbles on all rings of pair 0, and on those of pair 1 now and then, while it says this and that; until the switch has
/// enough of it, or for a second.
fn spoil(guest: Guest, layout: Layout, random: &mut Random) {
    let Guest { mut front_end, memory, pairs, .. } = guest;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (queue, writable) in [(&pairs[0].transmitq, false), (&pairs[0].receiveq, true)] {
            let mut scribbler = Scribbler::new(queue, layout, writable, &memory, random.any());
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    (0..200).for_each(|_| scribbler.scribble());
                    // The switch and its neighbours may be on the same CPU.
                    std::thread::yield_now();
                }
            });
        }
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            for _ in 0..random.below(20) {
                ring(pairs[0].transmit_bells.kick.as_ref().unwrap());
                std::thread::sleep(Duration::from_micros(random.below(200)));
            }
            // Mostly the ring by which it sends.
            let index = [1u32, 1, 1, 0, 1, 2, 3, 1][random.below(8) as usize];
            let pair = &pairs[index as usize / 2];
            let queue: &Queue = if index.is_multiple_of(2) { &pair.receiveq } else { &pair.transmitq };
            let said = match random.below(16) {
                // Sets a pair up anew, which mends what it broke.
                0..6 => front_end.set_fd(request::SET_VRING_CALL, index as u8, None),
                6..9 => {
                    let bells = Bells::new(random.below(2) == 0).unwrap();
                    front_end.start(index as u8, queue, &memory, &bells)
                }
                9 => front_end.set_base(index, random.below(u64::from(queue.size()) * 2) as u32 | 0x8000),
                10 | 11 => front_end.enable(index, random.below(3) != 0),
                12 => front_end.base(index).map(drop),
                13 => front_end.share(&memory),
                14 => plug_and_unplug(&mut front_end, &memory),
                _ => insult(&front_end, random),
            };
            if said.is_err() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    front_end.hang_up();
}

/// Takes the second region away while descriptors lead into it, and gives it back.
fn plug_and_unplug(
    front_end: &mut ringway_testbed::driver::FrontEnd,
    memory: &Arc<ringway_testbed::driver::DriverMemory>,
) -> std::io::Result<()> {
    for (span, file) in memory.regions().skip(1) {
        front_end.remove_region(span, file)?;
        std::thread::sleep(Duration::from_millis(1));
        front_end.add_region(span, file)?;
    }
    Ok(())
}

/// Says what is no message, seldom, and then the connection is over; mostly a message with numbers of its own.
fn insult(front_end: &ringway_testbed::driver::FrontEnd, random: &mut Random) -> std::io::Result<()> {
    if random.below(4) == 0 {
        let bytes: Vec<u8> = (0..random.below(100)).map(|_| random.any() as u8).collect();
        front_end.send(&bytes, &[])?;
        return Err(std::io::Error::other("that was it"));
    }
    let code = random.below(42) as u32;
    let words: Vec<u64> = (0..random.below(6)).map(|_| random.any() >> random.below(64)).collect();
    let (reader, _writer) = std::io::pipe()?;
    let fds = if random.below(4) == 0 { vec![reader.as_fd()] } else { vec![] };
    front_end.send(Message::words(code, &words).bytes(), &fds)?;
    Err(std::io::Error::other("whether it was taken nobody knows"))
}
