//! R3: chains that do not end, are too long, or lead out of the ring; and available rings that cannot be. R11: the same where
//! a packed ring of an odd size wraps.

use std::sync::atomic::Ordering;

use ringway::guest::ring::{RingFault, SEGMENTS_MAX};
use ringway_testbed::driver::frame::frame;
use ringway_testbed::driver::queue::flag;
use ringway_testbed::driver::{Layout, Options, Piece, RawDescriptor, eventually};

use crate::guests::{LAYOUTS, station};
use crate::scene::{HOSTILE, On, Scene};

/// A head that says that the chain goes on with itself, and a longer loop (split rings only: packed ones have no links).
/// Class of CVE-2020-14378 and CVE-2019-3900.
#[test]
fn r03_a_chain_that_is_a_loop() {
    for on in On::BOTH {
        let mut scene = Scene::new(Layout::Split, on);
        scene.offer(&[RawDescriptor { next: Some(0), ..scene.raw(flag::NEXT) }]);
        scene.assert_broken(RingFault::ChainTooLong);

        let mut scene = Scene::new(Layout::Split, on);
        let goes_on = scene.raw(flag::NEXT);
        scene.offer(&[goes_on, goes_on, goes_on, RawDescriptor { next: Some(1), ..goes_on }]);
        scene.assert_broken(RingFault::ChainTooLong);
    }
}

/// A loop of empty buffers gathers no bytes, and must end all the same.
/// Class of CVE-2020-14378 and CVE-2019-3900.
#[test]
fn r03_a_loop_of_nothing() {
    for on in On::BOTH {
        let mut scene = Scene::new(Layout::Split, on);
        scene.offer(&[RawDescriptor { len: 0, next: Some(0), ..scene.raw(flag::NEXT) }]);
        scene.assert_broken(RingFault::ChainTooLong);
    }
}

/// Every descriptor of the ring says that the chain goes on; also where the ring has an odd size, and where it wraps.
/// Class of CVE-2020-14378 and CVE-2019-3900.
#[test]
fn r03_a_chain_as_long_as_the_ring_that_goes_on() {
    for (layout, size) in [(Layout::Packed, 256), (Layout::Packed, 7), (Layout::Packed, 1), (Layout::Split, 8)] {
        for on in On::BOTH {
            for before in [0, 5] {
                let mut scene = Scene::with(on, Options { size, ..Options::new(layout) });
                move_on(&mut scene, before);
                let goes_on = RawDescriptor { len: 1, ..scene.raw(flag::NEXT) };
                let mut chain = vec![goes_on; usize::from(size)];
                // Where descriptors are linked, the last one leads back to the first.
                chain[usize::from(size) - 1].next = Some(0);
                scene.offer(&chain);
                scene.assert_broken(RingFault::ChainTooLong);
            }
        }
    }
}

/// Sends or receives frames, so that the ring does not stand at its start.
fn move_on(scene: &mut Scene, frames: usize) {
    for n in 0..frames {
        match scene.on {
            On::Transmitq => {
                scene.hostile.send(&frame(station(0), station(HOSTILE), 64, n as u64));
                assert!(scene.neighbours[0].receive().is_some());
                assert!(scene.hostile.settles());
            }
            On::Receiveq => {
                let pair = &mut scene.hostile.pairs[0];
                let piece = Piece { address: scene.buffer, len: 2048, writable: true };
                pair.receiveq.add(&[piece], false).unwrap();
                scene.provoke();
                let pair = &mut scene.hostile.pairs[0];
                assert!(eventually(|| pair.receiveq.used().is_some()));
            }
        }
    }
}

/// A chain may be as long as the ring, but not have more pieces than a burst has room for.
/// Class of CVE-2020-14378 and CVE-2019-3900.
#[test]
fn r03_a_chain_of_more_pieces_than_are_taken() {
    for layout in LAYOUTS {
        for on in On::BOTH {
            let options = Options { size: 4096, ..Options::new(layout) };
            let mut scene = Scene::with(on, options);
            let goes_on = RawDescriptor { len: 1, ..scene.raw(flag::NEXT) };
            let mut chain = vec![goes_on; SEGMENTS_MAX + 1];
            chain[SEGMENTS_MAX] = RawDescriptor { len: 1, ..scene.raw(0) };
            scene.offer(&chain);
            scene.assert_broken(RingFault::ChainTooLong);
        }
    }
}

/// More bytes than 32 bits count.
/// Class of CVE-2020-14378 and CVE-2019-3900.
#[test]
fn r03_a_chain_whose_length_overflows() {
    for layout in LAYOUTS {
        for on in On::BOTH {
            let mut scene = Scene::with(on, Options { memory_len: 6 << 30, ..Options::new(layout) });
            let start = scene.hostile.memory.regions().next().unwrap().0.guest;
            let huge = RawDescriptor { address: start, len: 0x8000_0000, ..scene.raw(flag::NEXT) };
            scene.offer(&[huge, RawDescriptor { flags: on.right(), ..huge }]);
            scene.assert_broken(RingFault::ChainTooLong);
        }
    }
}

/// Class of CVE-2020-14378 and CVE-2019-3900.
#[test]
fn r03_the_next_descriptor_is_out_of_range() {
    for on in On::BOTH {
        for next in [256, 257, 0x8000, 0xffff] {
            let mut scene = Scene::new(Layout::Split, on);
            scene.offer(&[RawDescriptor { next: Some(next), ..scene.raw(flag::NEXT) }]);
            scene.assert_broken(RingFault::BadIndex);
        }
    }
}

/// The available ring names a descriptor that the ring does not have.
/// Class of CVE-2020-14378 and CVE-2019-3900.
#[test]
fn r03_the_head_is_out_of_range() {
    for on in On::BOTH {
        for head in [256, 0xffff] {
            let mut scene = Scene::new(Layout::Split, on);
            let (memory, driver) = available(&scene);
            let index = memory.load_u16(driver + 2, Ordering::Relaxed);
            memory.store_u16(driver + 4 + u64::from(index % 256) * 2, head, Ordering::Relaxed);
            memory.store_u16(driver + 2, index.wrapping_add(1), Ordering::Release);
            scene.provoke();
            scene.assert_broken(RingFault::BadIndex);
        }
    }
}

/// More chains available than the ring has descriptors, up to one step back.
/// Class of CVE-2020-14378 and CVE-2019-3900.
#[test]
fn r03_the_available_index_jumps() {
    for on in On::BOTH {
        for jump in [257, 0x8000, 0xffff] {
            let mut scene = Scene::new(Layout::Split, on);
            let (memory, driver) = available(&scene);
            let index = memory.load_u16(driver + 2, Ordering::Relaxed);
            memory.store_u16(driver + 2, index.wrapping_add(jump), Ordering::Release);
            scene.provoke();
            scene.assert_broken(RingFault::AvailableJump);
        }
    }
}

/// The abused ring's memory, and where its available ring is.
fn available(scene: &Scene) -> (std::sync::Arc<ringway_testbed::driver::DriverMemory>, u64) {
    let pair = &scene.hostile.pairs[0];
    let queue = if scene.on == On::Transmitq { &pair.transmitq } else { &pair.receiveq };
    (scene.hostile.memory.clone(), queue.areas().driver)
}
