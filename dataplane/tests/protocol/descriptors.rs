//! File descriptors that come with messages: only eventfds are rung, and none is kept that is not needed (R7).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ringway_testbed::driver::front_end::request;
use ringway_testbed::driver::{FrontEnd, Guest, Layout, Listener, Message, Options, Span, eventually};

use crate::guests::{Net, introduce, passes};

/// Something that is no eventfd closes the connection before a worker ever writes to it.
#[test]
fn a_bell_that_is_no_eventfd() {
    let net = Net::new(3);
    let mut guests = vec![net.plug(0, Options::new(Layout::Packed)), net.plug(1, Options::new(Layout::Packed))];
    introduce(&mut guests);
    let (reader, writer) = std::io::pipe().unwrap();
    let file = tempfile::tempfile().unwrap();
    let fds: [(&str, BorrowedFd<'_>); 3] = [("pipe", reader.as_fd()), ("pipe", writer.as_fd()), ("file", file.as_fd())];
    for code in [request::SET_VRING_KICK, request::SET_VRING_CALL, request::SET_VRING_ERR] {
        for (what, fd) in fds {
            let mut candidate =
                Guest::negotiated(net.listeners[2].accept().unwrap(), Options::new(Layout::Packed)).unwrap();
            candidate.front_end.share(&candidate.memory).unwrap();
            candidate.start(0).unwrap();
            assert!(candidate.front_end.set_fd(code, 1, Some(fd)).is_err(), "{code} with a {what}");
            assert!(candidate.front_end.closes());
            passes(&mut guests, 0, 1, 64);
        }
    }
    assert!(net.port(2).last_error().unwrap().contains("not an eventfd"));
}

/// A message with a file descriptor too many or too few is no message.
/// Class of CVE-2019-14818, CVE-2020-10726 and CVE-2022-0669.
#[test]
fn r07_the_wrong_number_of_file_descriptors() {
    let net = Net::new(1);
    let file = tempfile::tempfile().unwrap();
    let (one, two) = ([file.as_fd()], [file.as_fd(), file.as_fd()]);
    let span = [Span::new(0, 4096)];
    let cases: [(Message, &[BorrowedFd<'_>]); 8] = [
        (Message::words(request::SET_VRING_KICK, &[0]), &[]),
        (Message::words(request::SET_VRING_KICK, &[0x100]), &one),
        (Message::words(request::SET_VRING_CALL, &[1]), &two),
        (Message::memory(request::SET_MEM_TABLE, &span), &[]),
        (Message::memory(request::SET_MEM_TABLE, &span), &two),
        (Message::memory(request::ADD_MEM_REG, &span), &[]),
        (Message::memory(request::ADD_MEM_REG, &span), &two),
        (Message::new(request::GET_FEATURES, &[]), &one),
    ];
    for (message, fds) in cases {
        let mut candidate = Guest::negotiated(net.listeners[0].accept().unwrap(), Options::new(Layout::Split)).unwrap();
        assert!(candidate.front_end.tell(message.clone(), fds).is_err(), "{message:?} with {} fds", fds.len());
        assert!(candidate.front_end.closes());
    }
}

/// The real program, ended when dropped.
struct Ringway(Child);

impl Ringway {
    fn start(directory: &Path, ports: usize) -> Self {
        let at = directory.display();
        let port = |index| {
            format!(
                "[[port]]\nname = \"vm{index}\"\nkind = \"vhost-user\"\nbridge = \"br0\"\nsocket = \"{at}/vm{index}.sock\"\n"
            )
        };
        let ports: String = (0..ports).map(port).collect();
        let text = format!(
            "control_socket = \"{at}/control.sock\"\nmetrics = \"off\"\n[workers]\ncpus = [0]\n[[bridge]]\nname = \"br0\"\n{ports}"
        );
        let config = directory.join("switch.toml");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command.args(["run", "--log", "error", "--config"]).arg(config).stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// As [`Ringway::holds`], once that has been the same for a third of a second: a connection is accepted before the
    /// switch has put the one before it away and has all that it needs for the next one.
    fn settles(&self) -> (usize, usize) {
        let (mut last, mut same) = (self.holds(), 0);
        let settled = eventually(|| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            let now = self.holds();
            same = if now == last { same + 1 } else { 0 };
            last = now;
            same == 33
        });
        assert!(settled, "it never comes to rest");
        last
    }

    /// File descriptors and mappings of guest memory that it has.
    fn holds(&self) -> (usize, usize) {
        let pid = self.0.id();
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        (fds, maps.lines().filter(|line| line.contains("memfd:driver")).count())
    }
}

impl Drop for Ringway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One connection that ends badly, in the way that `which` chooses.
fn abuse(listener: &Listener, which: usize) {
    let stream = listener.accept().unwrap();
    let options = Options { memory_len: 1 << 20, size: 64, buffers: 16, ..Options::new(Layout::Packed) };
    let options = if which.is_multiple_of(2) { options } else { Options { kicks: false, ..options } };
    match which % 5 {
        // Everything runs, then the guest is gone.
        0 => drop(Guest::over(stream, options).unwrap()),
        // Every message again and again, which must not keep what came with them.
        1 => {
            let mut guest = Guest::over(stream, options).unwrap();
            for _ in 0..10 {
                guest.front_end.share(&guest.memory).unwrap();
                guest.start(0).unwrap();
            }
        }
        // A table that is refused after its files came.
        2 => {
            let mut guest = Guest::negotiated(stream, options).unwrap();
            let file = File::from(guest.memory.regions().next().unwrap().1.try_clone_to_owned().unwrap());
            let spans = [Span::new(0, 0x2000), Span::new(0x1000, 0x2000)];
            let table = Message::memory(request::SET_MEM_TABLE, &spans);
            assert!(guest.front_end.tell(table, &[file.as_fd(), file.as_fd()]).is_err());
        }
        // Files with a message that takes none, or too many.
        3 => {
            let front_end = FrontEnd::from_stream(stream).unwrap();
            let file = tempfile::tempfile().unwrap();
            let code = if which.is_multiple_of(2) { request::GET_FEATURES } else { request::SET_VRING_CALL };
            front_end.send(Message::words(code, &[0]).bytes(), &[file.as_fd(); 30]).unwrap();
            assert!(front_end.closes());
        }
        // Half a message, with a file.
        _ => {
            let front_end = FrontEnd::from_stream(stream).unwrap();
            let file = tempfile::tempfile().unwrap();
            let message = Message::words(request::SET_VRING_KICK, &[0]);
            front_end.send(&message.bytes()[..which % 19 + 1], &[file.as_fd()]).unwrap();
            front_end.hang_up();
        }
    }
}

/// R7: two hundred connections that end badly leave no file descriptor and no mapping behind.
/// Class of CVE-2019-14818, CVE-2020-10726 and CVE-2022-0669.
#[test]
fn r07_nothing_is_left_of_two_hundred_abuses() {
    const PORTS: usize = 10;
    let directory = tempfile::tempdir().unwrap();
    let listen = |index| Listener::bind(&directory.path().join(format!("vm{index}.sock"))).unwrap();
    let listeners: Vec<_> = (0..PORTS).map(listen).collect();
    let ringway = Ringway::start(directory.path(), PORTS);
    // One after another on each port, the ports beside each other, since each waits a moment before it connects again.
    let rounds = |from: usize, to: usize| {
        for round in from..to {
            for (index, listener) in listeners.iter().enumerate() {
                abuse(listener, round + index);
            }
        }
        // All are gone, and all have come back.
        listeners.iter().map(|listener| FrontEnd::from_stream(listener.accept().unwrap()).unwrap()).collect::<Vec<_>>()
    };
    let waiting = rounds(0, 5);
    let before = ringway.settles();
    drop(waiting);
    let waiting = rounds(5, 25);
    assert_eq!(ringway.settles(), before, "file descriptors and mappings, after and before");
    assert_eq!(before.1, 0, "guest memory that no guest has");
    drop(waiting);
}
