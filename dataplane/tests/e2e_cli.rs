//! The real binary as an operator meets it: refusals in one line, the control socket, the metrics page, the end.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Loaded, SWITCH_CPU};
use ringway_testbed::{Metrics, Ringway, Signal, ringway_binary, scratch_dir};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(10);
/// SIGTERM has done its work within this.
const END: Duration = Duration::from_secs(1);
/// What `timeout` ends with when it had to end the command.
const TIMED_OUT: i32 = 124;

/// Runs the binary to its end, which has to come by itself.
fn ringway(arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", "10"]).arg(ringway_binary().unwrap()).args(arguments);
    let output = command.env_remove("RINGWAY_SOCKET").output().unwrap();
    assert_ne!(output.status.code(), Some(TIMED_OUT), "{arguments:?} goes on and on: {output:?}");
    output
}

/// The one line that a refusal is: status 1, nothing on stdout, one line on stderr.
fn refusal(arguments: &[&str]) -> String {
    let output = ringway(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty(), "{:?}", output.stdout);
    assert!(said.ends_with('\n') && said.lines().count() == 1, "not one line: {said}");
    said.trim_end().to_owned()
}

/// A configuration that differs from a good one in what the test changes.
fn config(directory: &Path, change: impl Fn(&str) -> String) -> String {
    let at = directory.display();
    let good = format!(
        "control_socket = \"{at}/control.sock\"\n\
         metrics = \"off\"\n\
         [[bridge]]\n\
         name = \"br0\"\n\
         [[port]]\n\
         name = \"vm1\"\n\
         kind = \"vhost-user\"\n\
         bridge = \"br0\"\n\
         socket = \"{at}/vm1.sock\"\n"
    );
    let path = directory.join("ringway.toml");
    fs::write(&path, change(&good)).unwrap();
    path.display().to_string()
}

/// What the switch says of a wrong configuration begins with file and line, and ends with what to do.
fn assert_refused(line: usize, problem: &str, mend: &str, change: impl Fn(&str) -> String) {
    let dir = scratch_dir().unwrap();
    let file = config(dir.path(), change);
    let said = refusal(&["run", "--config", &file]);
    let place = format!("ringway: {file}:{line}: ");
    assert!(said.starts_with(&place), "no {place} in: {said}");
    let (wrong, advice) = said[place.len()..].split_once("; ").unwrap_or_else(|| panic!("no mend: {said}"));
    assert!(wrong.contains(problem), "no \"{problem}\" in: {said}");
    assert!(advice.contains(mend), "no \"{mend}\" in: {said}");
    assert!(!dir.path().join("control.sock").exists(), "a control socket is left behind");
}

#[test]
fn an_unknown_key_is_refused() {
    assert_refused(2, "`metric`", "`metrics`", |good| good.replace("metrics", "metric"));
}

#[test]
fn a_duplicate_port_is_refused() {
    let again = "[[port]]\nname = \"vm1\"\nkind = \"vhost-user\"\nbridge = \"br0\"\nsocket = \"/run/vm2.sock\"\n";
    assert_refused(11, "already on line 6", "another name", |good| format!("{good}{again}"));
}

#[test]
fn a_missing_socket_directory_is_refused() {
    assert_refused(9, "does not exist", "mkdir -p", |good| good.replace("/vm1.sock", "/nowhere/vm1.sock"));
}

#[test]
fn a_port_in_no_bridge_is_refused() {
    assert_refused(5, "in no bridge", "add `bridge = ", |good| good.replace("bridge = \"br0\"\n", ""));
}

#[test]
fn a_metrics_port_in_use_is_refused() {
    let dir = scratch_dir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = config(dir.path(), |good| good.replace("off", &address));
    let said = refusal(&["run", "--config", &file, "--log", "error"]);
    assert!(said.contains(&address) && said.contains("set `metrics` to"), "{said}");
    assert!(!dir.path().join("control.sock").exists(), "a control socket is left behind");
}

#[test]
fn a_control_socket_of_another_switch_is_refused() {
    let dir = scratch_dir().unwrap();
    let first = Ringway::builder().start().unwrap();
    let control = first.control_socket().display().to_string();
    let own = dir.path().join("control.sock").display().to_string();
    let file = config(dir.path(), |good| good.replace(&own, &control));
    let said = refusal(&["run", "--config", &file, "--log", "error"]);
    assert!(said.contains(&control) && said.contains("stop it, or set `control_socket`"), "{said}");
    // The first one does not notice.
    first.show("ports").unwrap();
}

#[test]
fn a_control_socket_left_by_a_killed_switch_is_taken_over() {
    let mut ringway = Ringway::builder().start().unwrap();
    ringway.process().kill().unwrap();
    assert!(ringway.control_socket().exists(), "SIGKILL leaves it");
    ringway.restart().unwrap();
    ringway.show("ports").unwrap();
}

#[test]
fn show_without_a_switch_names_the_mend() {
    let dir = scratch_dir().unwrap();
    let control = dir.path().join("control.sock").display().to_string();
    let said = refusal(&["show", "ports", "--socket", &control]);
    assert!(said.contains(&control) && said.contains("ringway run --config"), "{said}");
}

#[test]
fn the_control_socket_is_for_owner_and_group() {
    let ringway = Ringway::builder().start().unwrap();
    let mode = fs::metadata(ringway.control_socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o660, "{mode:o}");
}

/// Ends within a second with status 0, and neither process nor socket is left.
fn assert_ends(ringway: &mut Ringway, signal: Signal) {
    let control = ringway.control_socket().to_owned();
    let process = ringway.process();
    let (pid, start) = (process.pid(), Instant::now());
    process.signal(signal).unwrap();
    let status = process.wait(PATIENCE).unwrap();
    let took = start.elapsed();
    assert!(took < END, "took {took:?}");
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(!control.exists(), "the control socket is left behind");
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is left behind");
}

#[test]
fn signals_end_an_idle_switch() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = scratch_dir().unwrap();
        // Nobody listens there: it is busy trying to connect.
        let mut ringway = Ringway::bridging(&[("vm1", dir.path().join("vm1.sock"))]).unwrap();
        assert_ends(&mut ringway, signal);
    }
}

#[test]
fn sigterm_ends_a_switch_under_load() {
    let mut loaded = Loaded::start();
    assert_ends(&mut loaded.ringway, Signal::TERM);
    // Its guests go on without it.
    assert!(loaded.guests.process().is_running());
    loaded.guests.command("show port stats all").unwrap();
}

/// The modes of each worker add up to wall time within 1 %, over 5 s.
fn assert_adds_up(ringway: &Ringway) {
    let scrape = || {
        let before = Instant::now();
        let metrics = ringway.metrics().unwrap();
        (before + before.elapsed() / 2, metrics)
    };
    let (start, first) = scrape();
    sleep(Duration::from_secs(5));
    let (end, second) = scrape();
    let wall = (end - start).as_secs_f64();
    let modes = ["busy", "idle", "sleep"].map(|mode| {
        let seconds =
            |metrics: &Metrics| metrics.sum("ringway_worker_seconds_total", &[("worker", "0"), ("mode", mode)]);
        let spent = seconds(&second) - seconds(&first);
        assert!(spent >= 0.0, "{mode} goes backwards by {spent} s");
        spent
    });
    let sum: f64 = modes.iter().sum();
    assert!((sum / wall - 1.0).abs() < 0.01, "busy, idle, sleep: {modes:?}, together {sum} s in {wall} s");
}

#[test]
fn worker_seconds_add_up_when_idle() {
    let dir = scratch_dir().unwrap();
    let ringway = Ringway::builder().cpu(SWITCH_CPU).bridge("br0").port("vm1", "br0", dir.path().join("vm1.sock"));
    assert_adds_up(&ringway.start().unwrap());
}

#[test]
fn worker_seconds_add_up_under_load() {
    let loaded = Loaded::start();
    let before = loaded.received();
    assert_adds_up(&loaded.ringway);
    let came = loaded.received() - before;
    assert!(came > 100_000, "{came} frames only: this was no load");
    let busy = loaded.ringway.metrics().unwrap().sum("ringway_worker_seconds_total", &[("mode", "busy")]);
    assert!(busy > 0.0, "{came} frames in no time");
}

/// One request and its answer, on a connection of its own.
fn ask(ringway: &Ringway, request: &[u8]) -> Value {
    let mut stream = connect(ringway);
    stream.write_all(request).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn connect(ringway: &Ringway) -> UnixStream {
    let stream = UnixStream::connect(ringway.control_socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn nonsense_on_the_control_socket_hurts_nobody() {
    let ringway = Ringway::builder().bridge("br0").start().unwrap();
    let code = |answer: &Value| answer["error"]["code"].as_i64();

    let unknown = ask(&ringway, b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"make.coffee\"}\n");
    assert_eq!((code(&unknown), &unknown["id"]), (Some(-32601), &json!(7)), "{unknown}");
    assert_eq!(code(&ask(&ringway, b"this is not JSON\n")), Some(-32700));
    assert_eq!(code(&ask(&ringway, b"\xff\xfe\n")), Some(-32700));
    assert_eq!(code(&ask(&ringway, b"[1,2]\n")), Some(-32600));

    // Half a line and an end; half a line and silence, which lasts to the end of the test.
    let mut half = connect(&ringway);
    half.write_all(b"{\"jsonrpc\":").unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = String::new();
    half.read_to_string(&mut rest).unwrap();
    let mut silent = connect(&ringway);
    silent.write_all(b"{\"jsonrpc\":").unwrap();

    // One MiB without a newline: the switch hangs up long before, so the last writes may fail, but do not hang.
    let mut endless = connect(&ringway);
    let start = Instant::now();
    let _ = endless.write_all(&vec![b'x'; 1 << 20]);
    assert!(start.elapsed() < PATIENCE, "a client that says too much is kept waiting");
    assert!(endless.read_to_end(&mut Vec::new()).is_err() || start.elapsed() < PATIENCE);

    assert_eq!(ringway.show("ports").unwrap(), json!([]));
    assert_eq!(ringway.show("workers").unwrap().as_array().map(Vec::len), Some(1));
}

/// The status line's number and the body.
fn http(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: switch\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn every_series_is_explained() {
    let loaded = Loaded::start();
    let (status, page) = http(loaded.ringway.metrics_address(), "GET /metrics");
    assert_eq!(status, 200);
    let named = |word: &str| -> BTreeSet<&str> {
        let lines = page.lines().filter_map(|line| line.strip_prefix(&format!("# {word} ")));
        lines.map(|rest| rest.split_once(' ').unwrap_or_else(|| panic!("{word} says nothing: {rest}")).0).collect()
    };
    let (helped, typed) = (named("HELP"), named("TYPE"));
    let metrics = loaded.ringway.metrics().unwrap();
    let mut series = BTreeSet::new();
    for sample in metrics.samples() {
        let name = sample.name.as_str();
        assert!(name.starts_with("ringway_"), "{name}");
        assert!(helped.contains(name) && typed.contains(name), "{name} has no HELP or no TYPE");
        assert!(series.insert((name, &sample.labels)), "twice: {sample:?}");
        assert_ne!(sample.labels.get("reason").map(String::as_str), Some("other"));
    }
    for name in [
        "ringway_worker_seconds_total",
        "ringway_port_receive_packets_total",
        "ringway_queue_transmit_bytes_total",
        "ringway_dropped_packets_total",
        "ringway_vhost_info",
        "ringway_copied_bytes_total",
        "ringway_forwarded_bytes_total",
        "ringway_generated_packets_total",
        "ringway_extra_copies_packets_total",
    ] {
        assert!(metrics.select(name, &[]).next().is_some(), "no {name}");
    }
}

#[test]
fn metrics_are_at_one_place_only() {
    let ringway = Ringway::builder().start().unwrap();
    let address = ringway.metrics_address();
    assert_eq!(http(address, "GET /metrics").0, 200);
    assert_eq!(http(address, "GET /else").0, 404);
    assert_eq!(http(address, "GET /metrics/").0, 404);
    assert_eq!(http(address, "POST /metrics").0, 405);
}
