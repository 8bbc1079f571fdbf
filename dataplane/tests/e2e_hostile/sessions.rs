//! A thousand front ends that are there and silent: what they cost, and that they wake nobody.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use ringway_testbed::Ringway;
use ringway_testbed::driver::{Guest, Layout, Options, Pair};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::scene::Scene;

const SESSIONS: usize = 1000;
const RESIDENT_MAX_KIB: u64 = 64 << 10;

/// How long nothing may happen.
const SILENCE: Duration = Duration::from_secs(5);

/// Wake-ups of all threads meanwhile: housekeeping's one a second, and some for the question itself.
const WAKE_UPS_MAX: u64 = 50;

/// A guest that runs, without the thread that watches over the double's calls.
struct Silent {
    _stream: UnixStream,
    _pairs: Vec<Pair>,
}

/// A small guest of a running session.
fn plug(scene: &Scene, index: usize) -> Silent {
    let stream = scene.listeners[index].accept().unwrap();
    let packed = Options::new(Layout::Packed);
    let options = Options { size: 64, buffers: 4, memory_len: 64 << 10, ..packed };
    let guest = Guest::over(stream.try_clone().unwrap(), options).unwrap();
    Silent { _stream: stream, _pairs: guest.pairs }
}

/// A line of a status file of /proc, which is a number.
fn status(path: &str, name: &str) -> u64 {
    let status = std::fs::read_to_string(path).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim_start_matches(':').split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn resident_kib(scene: &mut Scene) -> u64 {
    let pid = scene.ringway.process().pid();
    let path = format!("/proc/{pid}/status");
    println!("{:?}", ["VmRSS", "RssAnon", "RssFile", "RssShmem"].map(|name| (name, status(&path, name))));
    status(&path, "VmRSS")
}

/// Times that any thread of the switch has slept and was woken.
fn wake_ups(scene: &mut Scene) -> u64 {
    let pid = scene.ringway.process().pid();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |entry: std::io::Result<std::fs::DirEntry>| {
        status(&entry.unwrap().path().join("status").to_string_lossy(), "voluntary_ctxt_switches")
    };
    threads.map(of).sum()
}

#[test]
fn a_thousand_sessions_cost_little_and_sleep() {
    // The switch raises its limit of file descriptors by itself.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let mut alone = Scene::start(1, 0, Ringway::builder().log("error"));
    let _one = plug(&alone, 0);
    alone.ringway.wait_state(&["vm0"], "running").unwrap();
    let before = resident_kib(&mut alone);
    drop(alone);

    let mut scene = Scene::start(SESSIONS, 0, Ringway::builder().log("error"));
    let _guests: Vec<_> = (0..SESSIONS).map(|index| plug(&scene, index)).collect();
    let ports = scene.ringway.show("ports").unwrap();
    assert!(ports.as_array().unwrap().iter().all(|port| port["state"] == "running"));
    let after = resident_kib(&mut scene);
    // No counters are begun of pairs that are not in use.
    let queues = scene.ringway.show("queues").unwrap();
    assert_eq!(queues.as_array().unwrap().len(), SESSIONS);
    assert!(after - before <= RESIDENT_MAX_KIB, "{} KiB for {SESSIONS} sessions", after - before);

    // The last connection's threads come to rest.
    std::thread::sleep(Duration::from_secs(1));
    let start = wake_ups(&mut scene);
    std::thread::sleep(SILENCE);
    let woken = wake_ups(&mut scene) - start;
    println!("{} KiB, {woken} wake-ups in {SILENCE:?}", after - before);
    assert!(woken <= WAKE_UPS_MAX, "{woken} wake-ups in {SILENCE:?} of silence");
}
