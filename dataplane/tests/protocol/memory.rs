//! Guest memory: tables that are refused, tables that change under a running ring, regions that come and go.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use ringway::account::DropReason;
use ringway::guest::PortState;
use ringway_testbed::driver::frame::frame;
use ringway_testbed::driver::front_end::request;
use ringway_testbed::driver::{DriverMemory, FrontEnd, Guest, Layout, Message, Options, Piece, Span, eventually};

use crate::guests::{LAYOUTS, Net, introduce, passes, station};

fn file(len: u64) -> File {
    let file = File::from(rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    file.set_len(len).unwrap();
    file
}

fn negotiated(net: &Net, index: usize) -> FrontEnd {
    let stream = net.listeners[index].accept().unwrap();
    Guest::negotiated(stream, Options::new(Layout::Packed)).unwrap().front_end
}

/// R6: a table that cannot be ends its connection, whatever was true of the regions before the bad one.
/// Class of CVE-2020-10722, CVE-2020-10723 and CVE-2021-3839.
#[test]
fn r06_tables_that_cannot_be() {
    let net = Net::new(3);
    let mut guests = vec![net.plug(0, Options::new(Layout::Packed)), net.plug(1, Options::new(Layout::Split))];
    introduce(&mut guests);
    let (file, good) = (file(0x4000), Span::new(0x10_0000, 0x1000));
    let beyond = Span { file_offset: u64::MAX - 0xfff, ..Span::new(0, 0x2000) };
    let cases: [(&str, Vec<Span>); 9] = [
        ("beyond its file", vec![good, Span::new(0, 0x4001)]),
        ("beyond its file", vec![good, Span { file_offset: 0x3001, ..Span::new(0, 0x1000) }]),
        ("overlap", vec![Span::new(0, 0x2000), Span::new(0x1fff, 0x1000)]),
        ("overlap", vec![good, Span { user: 0, ..good }]),
        ("", vec![good, Span::new(0, 0)]),
        ("", vec![good, Span::new(u64::MAX - 0xffe, 0x1000)]),
        ("", vec![good, beyond]),
        ("", vec![good, Span { user: u64::MAX - 10, ..Span::new(0, 0x1000) }]),
        ("", vec![]),
    ];
    for (why, spans) in cases {
        for code in [request::SET_MEM_TABLE, request::ADD_MEM_REG] {
            let mut front_end = negotiated(&net, 2);
            let told = match code {
                request::SET_MEM_TABLE => {
                    front_end.tell(Message::memory(code, &spans), &vec![file.as_fd(); spans.len()])
                }
                _ => {
                    let mut add = |&span: &Span| front_end.tell(Message::memory(code, &[span]), &[file.as_fd()]);
                    spans.iter().try_for_each(&mut add).and_then(|()| front_end.tell(Message::memory(code, &[]), &[]))
                }
            };
            assert!(told.is_err(), "{code} {spans:x?}");
            assert!(front_end.closes());
            if !why.is_empty() {
                assert!(eventually(|| net.port(2).last_error().is_some_and(|error| error.contains(why))), "{why}");
            }
            passes(&mut guests, 0, 1, 64);
        }
    }
    guests.push(net.plug(2, Options::new(Layout::Packed)));
    introduce(&mut guests);
    passes(&mut guests, 2, 0, 64);
}

/// R6: 32 regions are taken, by a table or one by one, 33 are not.
/// Class of CVE-2020-10722, CVE-2020-10723 and CVE-2021-3839.
#[test]
fn r06_thirty_three_regions() {
    let net = Net::new(1);
    let file = file(0x1000);
    let spans: Vec<_> = (0..33).map(|n| Span::new(n * 0x1000, 0x1000)).collect();
    let fds: Vec<BorrowedFd<'_>> = spans.iter().map(|_| file.as_fd()).collect();
    let mut front_end = negotiated(&net, 0);
    front_end.tell(Message::memory(request::SET_MEM_TABLE, &spans[..32]), &fds[..32]).unwrap();
    assert!(front_end.add_region(spans[32], fds[32]).is_err(), "one more");
    assert!(front_end.closes());
    assert!(eventually(|| net.port(0).last_error().is_some_and(|error| error.contains("33 memory regions"))));
    let mut front_end = negotiated(&net, 0);
    assert!(front_end.tell(Message::memory(request::SET_MEM_TABLE, &spans), &fds).is_err());
    assert!(front_end.closes());
    let mut front_end = negotiated(&net, 0);
    for (span, fd) in spans.iter().zip(&fds).take(32) {
        front_end.add_region(*span, *fd).unwrap();
    }
    front_end.remove_region(spans[7], fds[7]).unwrap();
    front_end.add_region(spans[32], fds[32]).unwrap();
    assert!(front_end.add_region(spans[7], fds[7]).is_err());
}

/// R8: a new table while rings run. Where the rings were told to be, they are looked for again: the guest moves to other
/// files behind the same addresses, and what it leaves behind is not touched any more.
/// R8, without a CVE: DPDK 1846fe767f, ring addresses that went stale.
#[test]
fn r08_a_table_while_rings_run() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        for round in 0..20 {
            for len in [60, 1514, 100] {
                passes(&mut guests, 0, 1, len + round);
                passes(&mut guests, 1, 0, len + round);
            }
            let guest = &mut guests[round % 2];
            assert!(guest.settles());
            let left = guest.memory.clone();
            let twin = left.duplicate().unwrap();
            guest.move_to(twin).unwrap();
            let (span, _) = left.regions().next().unwrap();
            left.write(span.guest, &vec![0xa5; span.len as usize]);
        }
        net.assert_balances();
    }
}

/// A table repeated while frames are on their way. Of what the sender has made available nothing is lost and nothing comes
/// twice. A receiver whose rings are being moved gets nothing meanwhile, and what it misses is counted as that.
#[test]
fn tables_under_traffic() {
    for layout in LAYOUTS {
        for (who, may_lose) in [(0, false), (1, true)] {
            let net = Net::new(2);
            let mut guests = net.plug_all(layout);
            introduce(&mut guests);
            let (mut sent, mut last) = (0u64, None);
            let mut lost = 0;
            while sent < 3000 {
                let mut next = frame(station(1), station(0), 300, 0);
                next[14..22].copy_from_slice(&sent.to_be_bytes());
                guests[0].send(&next);
                sent += 1;
                if sent.is_multiple_of(32) {
                    let Guest { front_end, memory, .. } = &mut guests[who];
                    front_end.share(memory).unwrap();
                }
                // Never more on their way than the receiver has buffers.
                if sent.is_multiple_of(96) || sent == 3000 {
                    assert!(guests[0].settles());
                    while let Some(came) = guests[1].pairs[0].try_receive() {
                        let number = u64::from_be_bytes(came[14..22].try_into().unwrap());
                        let expected = last.map_or(0, |last: u64| last + 1);
                        assert!(number >= expected, "{number} after {last:?}");
                        lost += number - expected;
                        last = Some(number);
                    }
                }
            }
            lost += sent - 1 - last.unwrap();
            assert!(may_lose || lost == 0, "{lost} of {sent} are lost");
            assert_eq!(
                net.receive_dropped(0, DropReason::ReceiverStopped) + net.receive_dropped(0, DropReason::NoDestination),
                lost
            );
            net.assert_balances();
        }
    }
}

/// Memory that is plugged can hold buffers at once; what is unplugged again held none.
#[test]
fn regions_come_and_go() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        let added = DriverMemory::new(&[Span::new(0x40_0000_0000, 1 << 20)]).unwrap();
        let (span, fd) = added.regions().next().unwrap();
        for round in 0..3 {
            guests[0].front_end.add_region(span, fd).unwrap();
            passes(&mut guests, 0, 1, 60 + round);
            // A frame from there, header and all.
            let sent = frame(station(1), station(0), 1000, round as u64);
            added.write(span.guest, &[&[0; 12], &sent[..]].concat());
            let piece = Piece { address: span.guest, len: 1012, writable: false };
            guests[0].pairs[0].transmitq.add(&[piece], false).unwrap();
            guests[0].pairs[0].kick();
            assert!(guests[1].receive().as_deref() == Some(&sent[..]));
            guests[0].front_end.remove_region(span, fd).unwrap();
            passes(&mut guests, 0, 1, 60 + round);
            passes(&mut guests, 1, 0, 60 + round);
        }
        // QEMU 7.2 says both once for each queue pair.
        for _ in 0..3 {
            guests[0].front_end.add_region(span, fd).unwrap();
        }
        for _ in 0..3 {
            guests[0].front_end.remove_region(span, fd).unwrap();
        }
        passes(&mut guests, 0, 1, 100);
        passes(&mut guests, 1, 0, 100);
        assert_eq!(net.metric("ringway_vhost_connects_total", &[]), 2, "a connection was lost");
    }
}

/// A buffer in a region that was unplugged is a buffer outside the memory.
#[test]
fn a_buffer_in_unplugged_memory() {
    let net = Net::new(3);
    let mut guests = net.plug_all(Layout::Packed);
    introduce(&mut guests);
    let added = DriverMemory::new(&[Span::new(0x40_0000_0000, 1 << 20)]).unwrap();
    let (span, fd) = added.regions().next().unwrap();
    guests[0].front_end.add_region(span, fd).unwrap();
    guests[0].front_end.remove_region(span, fd).unwrap();
    let piece = Piece { address: span.guest, len: 1012, writable: false };
    guests[0].pairs[0].transmitq.add(&[piece], false).unwrap();
    guests[0].pairs[0].kick();
    assert!(eventually(|| net.counters(0).fault() == Some(ringway::guest::ring::RingFault::BadAddress)));
    passes(&mut guests, 1, 2, 64);
}

/// A region that is moved is removed and then added: rings in it wait meanwhile, and go on where they stood.
#[test]
fn the_rings_own_memory_goes_and_comes_back() {
    for layout in LAYOUTS {
        let net = Net::new(3);
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        for round in 0..5 {
            passes(&mut guests, 0, 2, 60 + round);
            passes(&mut guests, 2, 0, 60 + round);
            assert!(guests[2].settles());
            let Guest { front_end, memory, pairs, .. } = &mut guests[2];
            let ring = pairs[0].receiveq.areas().descriptors;
            let memory = memory.clone();
            let (span, fd) = memory.regions().find(|(span, _)| ring - span.guest < span.len).unwrap();
            front_end.remove_region(span, fd).unwrap();
            assert_eq!(net.port(2).state(), PortState::Connected);
            assert!(net.port(2).last_error().is_some_and(|error| error.contains("waits")));
            // Sent while it waits, and taken afterwards.
            let waits = frame(station(0), station(2), 99, round as u64);
            guests[2].send(&waits);
            assert!(guests[0].hears_nothing());
            passes(&mut guests, 0, 1, 64);
            guests[2].front_end.add_region(span, fd).unwrap();
            assert_eq!((net.port(2).state(), net.port(2).last_error()), (PortState::Running, None));
            assert!(guests[0].receive().as_deref() == Some(&waits[..]), "{layout:?} round {round}");
        }
        net.assert_balances();
    }
}

/// What is known already is no news; another file in its place is a front end that has lost its way.
#[test]
fn a_region_is_added_twice() {
    let net = Net::new(2);
    let mut guests = net.plug_all(Layout::Packed);
    introduce(&mut guests);
    let (span, one, other) = (Span::new(0x40_0000_0000, 0x1000), file(0x1000), file(0x1000));
    let front_end = &mut guests[1].front_end;
    front_end.add_region(span, one.as_fd()).unwrap();
    front_end.add_region(span, one.try_clone().unwrap().as_fd()).unwrap();
    passes(&mut guests, 0, 1, 64);
    assert!(guests[1].front_end.add_region(span, other.as_fd()).is_err());
    assert!(guests[1].front_end.closes());
    assert!(eventually(|| net.port(1).last_error().is_some_and(|error| error.contains("overlap"))));
}
