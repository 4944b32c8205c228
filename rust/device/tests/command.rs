// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command as a process: what it prints, its signals, its files, its end.

mod support;

use ivshmem_device::spec::LinkOptions;
use ivshmem_device::statistics::PeerKind;
use ivshmem_device::statistics::Statistics;
use rustix::process::kill_process;
use rustix::process::Pid;
use rustix::process::Signal;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use support::machine::*;
use support::wait_for;
use tempfile::TempDir;
use vfio_user::Client;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ivshmem-device");

/// The command at work, in a directory of its own.
struct Device {
    process: Child,
    directory: TempDir,
}

impl Device {
    fn start(args: &[&str]) -> Self {
        Self::start_in(TempDir::new().expect("a directory"), args)
    }

    fn start_in(directory: TempDir, args: &[&str]) -> Self {
        let mut process = Command::new(PROGRAM)
            .arg("--socket-dir")
            .arg(directory.path().join("run"))
            .arg("--stats")
            .arg(directory.path().join("stats.json"))
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command");
        let mut line = String::new();
        let output = process.stdout.as_mut().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line, "listening\n");
        Self { process, directory }
    }

    fn socket(&self, peer: u16) -> PathBuf {
        let name = format!("peer{peer}.sock");
        self.directory.path().join("run").join(name)
    }

    fn statistics(&self) -> Statistics {
        read_statistics(&self.directory.path().join("stats.json"))
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, signal).expect("it lives");
    }

    fn end(mut self, signal: Signal) -> (ExitStatus, Statistics, TempDir) {
        self.signal(signal);
        let status = self.process.wait().expect("a child");
        let statistics = self.statistics();
        let directory = std::mem::replace(&mut self.directory, TempDir::new().expect("one"));
        (status, statistics, directory)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read_statistics(path: &Path) -> Statistics {
    let json = fs::read_to_string(path).expect("statistics");
    serde_json::from_str(&json).expect("the documented format")
}

#[test]
fn ends_cleanly_on_sigterm_and_sigint_with_statistics() {
    for signal in [Signal::TERM, Signal::INT] {
        let device = Device::start(&["--vectors", "2", "--inmate", "1:quiet"]);
        let before = device.statistics();
        assert_eq!((before.sequence, before.last), (1, false));
        let socket = device.socket(0);
        assert!(socket.exists());
        let (status, statistics, _directory) = device.end(signal);
        assert!(status.success());
        assert_eq!((statistics.sequence, statistics.last), (2, true));
        assert_eq!(statistics.format, 1);
        assert_eq!(statistics.link.vectors, 2);
        assert_eq!(statistics.peers[1].kind, PeerKind::Inmate);
        assert!(!socket.exists());
    }
}

#[test]
fn ends_cleanly_with_a_client_attached() {
    let device = Device::start(&[]);
    let mut client = Client::new(&device.socket(0)).unwrap();
    client.reset().unwrap();
    let (status, statistics, _directory) = device.end(Signal::TERM);
    assert!(status.success());
    assert_eq!(statistics.peers[0].resets, 1);
    assert!(client.region_read(0, 0, &mut [0; 4]).is_err());
}

#[test]
fn sigusr1_writes_a_snapshot_and_goes_on() {
    let device = Device::start(&[]);
    let mut client = Client::new(&device.socket(1)).unwrap();
    for round in 2..5 {
        client.reset().unwrap();
        device.signal(Signal::USR1);
        let statistics = wait_for("the snapshot", || {
            Some(device.statistics()).filter(|s| s.sequence == round)
        });
        assert_eq!(statistics.peers[1].resets, round - 1);
        assert!(!statistics.last);
    }
    assert!(!device.directory.path().join("stats.json.new").exists());
}

#[test]
fn killed_it_leaves_sockets_that_the_next_replaces() {
    let mut device = Device::start(&[]);
    device.process.kill().unwrap();
    device.process.wait().unwrap();
    assert!(device.socket(0).exists());
    let directory = std::mem::replace(&mut device.directory, TempDir::new().unwrap());
    let device = Device::start_in(directory, &[]);
    assert!(Client::new(&device.socket(0)).is_ok());
}

#[test]
fn device_model_dies_and_the_guest_reads_all_ones_but_keeps_the_memory() {
    let mut device = Device::start(&["--peers", "2"]);
    let sockets = [device.socket(0), device.socket(1)];
    let mut machine = Machine::start(device.directory.path(), &sockets, &LinkOptions::default());
    machine.store(0, 0x1000, 0x77);
    assert_eq!(machine.get(1, 0), 1);
    device.process.kill().unwrap();
    device.process.wait().unwrap();
    assert_eq!(machine.get(1, 0), u32::MAX);
    machine.set(1, STATE, 1);
    assert_eq!(machine.load(1, 0x1000), 0x77);
}

#[test]
fn serves_thousands_of_peers() {
    let device = Device::start(&["--peers", "4096", "--state-size", "16K", "--rw-size", "0"]);
    let mut client = Client::new(&device.socket(4095)).unwrap();
    client.region_write(7, 4, &[0x06, 0x00]).unwrap();
    client.region_write(0, 0x10, &[9, 0, 0, 0]).unwrap();
    let mut id = [0; 4];
    client.region_read(0, 0, &mut id).unwrap();
    assert_eq!(u32::from_le_bytes(id), 4095);
    let mut state = [0; 4];
    client.region_read(4, 4095 * 4, &mut state).unwrap();
    assert_eq!(u32::from_le_bytes(state), 9);
    let (status, statistics, _directory) = device.end(Signal::TERM);
    assert!(status.success());
    assert_eq!(statistics.peers[4095].state_changes, 1);
}

/// Runs the command, which is to refuse `args`, and gives its message.
fn refused(status: i32, args: &[&str]) -> String {
    let output = Command::new(PROGRAM).args(args).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{args:?}: {message}");
    assert!(output.stdout.is_empty(), "{args:?}");
    message
}

#[test]
fn bad_command_lines_get_one_sentence_and_status_2() {
    for (args, expected) in [
        (&["--rw-size", "0x9001"][..], "use 0x9000 or 0xa000"),
        (&["--rw-size", "12"], "not a multiple of 4096"),
        (&["--rw-size", "x"], "not a number"),
        (&["--rw-size", "+1"], "not a number"),
        (&["--rw-size", ""], "not a number"),
        (&["--rw-size", "0xffffffffffffffff"], "larger"),
        (&["--rw-size", "0xffffffffffffG"], "larger"),
        (&["--state-size", "0"], "needs a state table"),
        (&["--state-size", "4G"], "larger"),
        (&["--peers", "1"], "2..=4096"),
        (&["--peers", "4097"], "2..=4096"),
        (&["--vectors", "2049"], "0..=2048"),
        (&["--protocol", "0x10000"], "0..=0xffff"),
        (&["--shape", "round"], "jailhouse, bar2"),
        (&["--protection", "none"], "trap, mapped"),
        (&["--inmate", "x"], "not a peer ID"),
        (&["--inmate", "1:dance"], "demo, quiet or echo"),
        (&["--inmate", "1:channel-echo,x"], "to=N, poll=N"),
        (&["--fault", "bug"], "`--fault help` lists them"),
        (&["--fault", "no-capability@x"], "not a peer ID"),
        (&["--fault", "beyond-bar"], "needs --shape bar2"),
        (&["--fault", "no-peers@2"], "peer IDs end at 1"),
        (
            &["--fault", "no-peers@1", "--inmate", "1"],
            "peer 1 has the fault no-peers",
        ),
        (&["--peers", "2000"], "no room for 2000 peers"),
        (&["--inmate", "2"], "not below the number of peers"),
        (&["--command", "dance"], "there is no command `dance`"),
        (&["--command", "vanish 2"], "there is no peer 2"),
        (
            &["--output-size", "0x8000000000000000"],
            "too large a region",
        ),
    ] {
        let directory = TempDir::new().unwrap();
        let mut line = vec!["--socket-dir", directory.path().to_str().unwrap()];
        line.extend(args);
        let message = refused(2, &line);
        let (sentence, below) = message.split_once('\n').unwrap();
        match sentence.strip_prefix("error: ") {
            // By the parser, which names the option, and may have the values on a line of their own.
            Some(sentence) => {
                assert!(sentence.contains(args[0]), "{args:?}: {message}");
                let values = below.trim_start().lines().next().unwrap();
                let told = sentence.contains(expected)
                    || values.starts_with("[possible") && values.contains(expected);
                assert!(told, "{args:?}: {message}");
            }
            None => {
                assert!(sentence.starts_with("ivshmem-device: "), "{message}");
                assert!(sentence.contains(expected), "{args:?}: {message}");
                assert_eq!(below, "", "{args:?}");
            }
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

// bad input: no `--socket-dir` => status 2, one sentence: `--socket-dir is missing`
#[test]
fn without_a_directory_for_the_sockets_there_is_one_sentence() {
    for args in [&[][..], &["--fault", "one-peer"]] {
        let message = refused(2, args);
        assert!(
            message.starts_with("error: --socket-dir is missing: name a directory"),
            "{message}"
        );
    }
}

// bad input: a socket for `--control` that cannot be made, or is in use => status 1, one sentence: choose another `--control`
#[test]
fn a_bad_path_names_the_option_that_it_is_from() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (directory, long) = (at("run"), at(&"x".repeat(200)));
    let nowhere = at("nowhere/control.sock");
    fs::write(at("file"), "precious").unwrap();
    for path in [&nowhere, &long, &at("file"), &at("run/peer0.sock")] {
        let message = refused(1, &["--socket-dir", &directory, "--control", path]);
        assert!(message.contains(" --control\n"), "{message}");
        assert!(!message.contains("--socket-dir"), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    for path in [&long, &at("file")] {
        let message = refused(1, &["--socket-dir", path]);
        assert!(message.contains(" --socket-dir\n"), "{message}");
    }
}

#[test]
fn commands_are_carried_out_at_the_start_and_on_the_control_socket() {
    let folder = TempDir::new().unwrap();
    let control = folder.path().join("control.sock");
    let path = control.to_str().unwrap();
    let device = Device::start(&["--command", "vanish 1", "--control", path]);
    let mut client = Client::new(&device.socket(1)).unwrap();
    let mut identity = [0; 4];
    client.region_read(7, 0, &mut identity).unwrap();
    assert_eq!(identity, [0xff; 4]);
    let mut stream = std::os::unix::net::UnixStream::connect(&control).unwrap();
    stream.write_all(b"return 1\n").unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    assert_eq!(answer, "ok\n");
    client.region_read(7, 0, &mut identity).unwrap();
    assert_eq!(identity, [0x0a, 0x11, 0x06, 0x41]);
    let (status, statistics, _directory) = device.end(Signal::TERM);
    assert!(status.success());
    assert_eq!(statistics.peers[1].faults.gone_accesses, 1);
    assert!(!control.exists(), "the socket is removed");
}

#[test]
fn statistics_that_cannot_be_written_are_refused_at_the_start() {
    let directory = TempDir::new().unwrap();
    let output = Command::new(PROGRAM)
        .arg("--socket-dir")
        .arg(directory.path())
        .args(["--stats", "/nonexistent/stats.json"])
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("/nonexistent/stats.json"), "{message}");
    assert!(message.contains("choose another --stats"), "{message}");
}

#[test]
fn fault_help_lists_all_faults_and_starts_nothing() {
    let output = Command::new(PROGRAM)
        .args(["--fault", "help"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("no-capability"), "{text}");
    assert!(text.contains("dead-registers"), "{text}");
}
