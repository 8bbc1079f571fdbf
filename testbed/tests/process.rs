//! A process ends with its owner, whatever happens.

use std::path::Path;
use std::time::{Duration, Instant};

use ringway_testbed::{Process, Signal, Spawn, wait_for};

const SOON: Duration = Duration::from_secs(20);

fn shell(script: &str) -> Process {
    Spawn::new("sh").args(["-c", script]).start().expect("sh starts")
}

/// A zombie counts as gone: its parent may be anybody.
fn is_gone(pid: &str) -> bool {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid).join("status")).unwrap_or_default();
    status.is_empty() || status.contains("\nState:\tZ")
}

#[test]
fn output_is_kept_and_waited_for() {
    let process = shell("echo out; echo err >&2; read line; echo got $line; sleep 60");
    process.wait_for_line("err", SOON).unwrap();
    let before = process.log_len();
    process.send_line("this").unwrap();
    assert_eq!(process.wait_for_line_after(before, "got", SOON).unwrap(), "got this");
    assert_eq!(process.log(), "out\nerr\ngot this\n");
    assert_eq!(process.tail(2), "err\ngot this");
}

#[test]
fn waiting_ends_early_when_the_process_does() {
    let process = shell("echo last words");
    let begun = Instant::now();
    let error = process.wait_for_line("never", SOON).unwrap_err().to_string();
    assert!(error.contains("last words"), "{error}");
    assert!(begun.elapsed() < SOON);
}

#[test]
fn the_status_of_its_end_is_known() {
    let mut process = shell("exit 7");
    assert_eq!(process.wait(SOON).unwrap().code(), Some(7));
    assert!(!process.is_running());
    assert_eq!(process.stop().unwrap().code(), Some(7));
    process.signal(Signal::TERM).unwrap_err();
}

#[test]
fn a_program_that_is_not_there_says_so() {
    let mut process = Spawn::new("ringway-no-such-program").start().unwrap();
    assert_eq!(process.wait(SOON).unwrap().code(), Some(127));
    assert!(process.log().contains("ringway-no-such-program"));
}

#[test]
fn its_children_end_with_it() {
    let mut process = shell("sleep 60 & echo child $!; wait");
    let child = process.wait_for_line("child", SOON).unwrap().replace("child ", "");
    process.kill().unwrap();
    wait_for("the child's end", SOON, || is_gone(&child).then_some(())).unwrap();
}

#[test]
fn one_that_ignores_sigterm_is_killed() {
    let script = ["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"];
    let mut process = Spawn::new("sh").args(script).grace(Duration::from_millis(200)).start().unwrap();
    process.wait_for_line("ready", SOON).unwrap();
    assert_eq!(process.stop().unwrap().code(), None);
}

#[test]
fn it_outlives_the_thread_that_started_it() {
    let process = std::thread::spawn(|| shell("echo ready; sleep 60")).join().unwrap();
    process.wait_for_line("ready", SOON).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(process.is_running());
}

#[test]
fn it_dies_when_this_process_is_killed() {
    // This very test binary is the one to be killed; in it, a test that holds a process and sleeps.
    let binary = std::env::current_exe().unwrap();
    let mut victim = Spawn::new(binary)
        .args(["--exact", "holds_a_process", "--ignored", "--nocapture", "--test-threads=1"])
        .start()
        .unwrap();
    let line = victim.wait_for_line("holding ", SOON).unwrap();
    let held = line.rsplit(' ').next().unwrap().to_owned();
    assert!(!is_gone(&held));
    victim.kill().unwrap();
    wait_for("the held process's end", SOON, || is_gone(&held).then_some(())).unwrap();
}

#[test]
#[ignore = "a part of it_dies_when_this_process_is_killed"]
fn holds_a_process() {
    let process = shell("sleep 60");
    println!("\nholding {}", process.pid());
    std::thread::sleep(Duration::from_secs(30));
}

#[test]
fn it_runs_on_the_cpu_that_it_was_given() {
    let process = Spawn::new("sh").args(["-c", "grep Cpus_allowed_list: /proc/self/status; sleep 60"]).cpu(0);
    let process = process.start().unwrap();
    let line = process.wait_for_line("Cpus_allowed_list", SOON).unwrap();
    assert_eq!(line.split_whitespace().last(), Some("0"));
}
