// SPDX-License-Identifier: MIT OR Apache-2.0
//! The programs of `samples/` that use channels, both ends in one guest, as somebody would use them.

use super::{soon, Env, Test};
use crate::system;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{channel, Receiver};

pub(super) const TESTS: &[Test] = &[
    Test::two_peers(
        "chat: lines go both ways, and the end of one is the end of the other",
        chat,
    ),
    Test::two_peers(
        "chat: one end dies, the other says so and ends",
        chat_death,
    ),
    Test::two_peers(
        "request: answers, refusals, and one server for many clients",
        request,
    ),
    // bad input: a request with nobody at the other end => one sentence after the timeout, status 1
    Test::two_peers("request: nobody answers", request_timeout),
    Test::two_peers(
        "send-file: a file arrives as it is, confirmed and stored",
        send_file,
    ),
    Test::two_peers(
        "send-file: the receiver is killed in the middle, and the transfer goes on with what is stored",
        send_file_restart,
    ),
    // bad input: a file that changes while it is sent => the reason at both ends, status 1 of the sender; nothing is stored
    Test::two_peers(
        "send-file: a file changes while it is sent, and both ends say so",
        send_file_changed,
    ),
    // bad input: sending a file whose name leads elsewhere, or a folder that is not there => one sentence, status 1
    Test::two_peers("send-file: what cannot be sent or stored is said", send_nothing),
];

/// A program with pipes; killed when dropped.
struct Program {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

/// The command of a sample at the near or far end.
fn command(env: &Env, name: &str, near: bool) -> Command {
    let (node, peer) = if near {
        (env.node(), env.other_expected().peer)
    } else {
        (env.other_node(), env.expected().peer)
    };
    let mut command = Command::new(Path::new("/bin").join(name));
    command.arg("--device").arg(node);
    command.args(["--peer", &peer.to_string()]);
    command
}

impl Program {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start a sample");
        Self {
            input: child.stdin.take(),
            lines: lines_of(child.stdout.take().expect("piped")),
            child,
        }
    }

    /// Types a line.
    fn types(&mut self, line: &str) {
        let input = self.input.as_mut().expect("not ended");
        input.write_all(line.as_bytes()).expect("type");
        input.write_all(b"\n").expect("type");
    }

    /// Waits until it prints `line`.
    fn prints(&self, line: &str) {
        let mut seen = Vec::new();
        while let Ok(got) = self.lines.recv_timeout(soon()) {
            if got == line {
                return;
            }
            seen.push(got);
        }
        panic!("`{line}` was not printed, but {seen:?}");
    }

    /// Ends its input, and waits for its end.
    fn ends(mut self) -> Option<i32> {
        drop(self.input.take());
        let mut status = None;
        system::wait_until(soon(), || {
            status = self.child.try_wait().expect("wait");
            status.is_some()
        });
        status.expect("it ends").code()
    }
}

/// The lines of an output, as they come.
fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn chat(env: &Env) {
    let mut near = Program::start(command(env, "ivshmem-chat", true));
    let other = env.other_expected().peer;
    near.prints(&format!("-- waiting for peer {other}"));
    near.types("typed early");
    let mut far = Program::start(command(env, "ivshmem-chat", false));
    near.prints(&format!("-- peer {other} is there"));
    far.prints("typed early");
    far.types("hello, root cell");
    near.prints("hello, root cell");
    near.types("");
    near.types("bye");
    far.prints("bye");
    assert_eq!(near.ends(), Some(0), "everything was read");
    far.prints(&format!("-- peer {} has left", env.expected().peer));
    assert_eq!(far.ends(), Some(0));
}

fn chat_death(env: &Env) {
    let mut near = Program::start(command(env, "ivshmem-chat", true));
    let mut far = Program::start(command(env, "ivshmem-chat", false));
    far.types("last words");
    near.prints("last words");
    near.types("are you there?");
    far.prints("are you there?");
    drop(far);
    near.prints(&format!("-- peer {} has left", env.other_expected().peer));
    assert_eq!(near.ends(), Some(0));
}

/// Runs a client to its end.
fn ask(env: &Env, words: &[&str]) -> Output {
    let mut command = command(env, "ivshmem-request", true);
    let timeout = soon().as_millis().to_string();
    command.arg("ask").args(["--timeout", &timeout]).args(words);
    command.output().expect("run a client")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_string()
}

fn request(env: &Env) {
    let mut serve = command(env, "ivshmem-request", false);
    serve.arg("serve");
    let server = Program::start(serve);
    for number in 0..3 {
        let words = format!("number {number}");
        let got = ask(env, &["echo", &words]);
        assert!(got.status.success(), "{got:?}");
        assert_eq!(text(&got.stdout), words);
    }
    let got = ask(env, &["uptime"]);
    let uptime = text(&got.stdout);
    let seconds = uptime.split(' ').next().map(str::parse::<f64>);
    assert!(matches!(seconds, Some(Ok(1.0..))), "{got:?}");
    let got = ask(env, &["dance"]);
    assert_eq!(got.status.code(), Some(1));
    assert!(
        text(&got.stderr).contains("nobody here knows `dance`"),
        "{got:?}"
    );
    // Another server in its place.
    drop(server);
    let mut serve = command(env, "ivshmem-request", false);
    serve.arg("serve");
    let _server = Program::start(serve);
    let got = ask(env, &["echo", "again"]);
    assert_eq!(text(&got.stdout), "again", "{got:?}");
}

fn request_timeout(env: &Env) {
    let mut command = command(env, "ivshmem-request", true);
    let got = command
        .args(["ask", "--timeout", "100", "--tries", "2", "uptime"])
        .output()
        .expect("run a client");
    assert_eq!(got.status.code(), Some(1));
    let words = text(&got.stderr);
    assert!(
        words.contains("has not answered within 100 ms, 2 times: nobody is there"),
        "{words}"
    );
}

/// A file with content that does not repeat, and an empty folder for it.
fn file_and_folder(size: usize) -> (PathBuf, PathBuf) {
    let folder = PathBuf::from("/tmp/received");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).expect("a folder");
    let file = PathBuf::from("/tmp/a file.bin");
    let mut content = super::channels::patterned(9, size);
    content.extend_from_slice(b"the end");
    fs::write(&file, content).expect("a file");
    (file, folder)
}

/// A receiver at the far end.
fn receiver(env: &Env, folder: &Path) -> Program {
    let mut command = command(env, "ivshmem-send-file", false);
    command.arg("receive").arg(folder).arg("--once");
    Program::start(command)
}

/// A sender at the near end.
fn sender(env: &Env, file: &Path) -> Program {
    let mut command = command(env, "ivshmem-send-file", true);
    command.arg("send").arg(file);
    Program::start(command)
}

/// Whether both have stored the file.
fn complete(sender: Program, receiver: Program, file: &Path, folder: &Path) {
    let size = fs::metadata(file).expect("a file").len();
    sender.prints(&format!("a file.bin: {size} bytes are stored"));
    assert_eq!(sender.ends(), Some(0));
    let stored = folder.join("a file.bin");
    receiver.prints(&format!("{} is stored", stored.display()));
    assert_eq!(receiver.ends(), Some(0));
    let same = fs::read(file).expect("read") == fs::read(stored).expect("read");
    assert!(same, "it is another file");
    assert_eq!(
        fs::read_dir(folder).expect("list").count(),
        1,
        "nothing else"
    );
}

fn send_file(env: &Env) {
    for size in [0, 1, 100_000, 1_500_000] {
        let (file, folder) = file_and_folder(size);
        let sender = sender(env, &file);
        let receiver = receiver(env, &folder);
        complete(sender, receiver, &file, &folder);
    }
}

/// How much of the file is there.
fn stored(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("list").flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|it| it.len())
        .sum()
}

fn send_file_restart(env: &Env) {
    let (file, folder) = file_and_folder(6_000_000);
    let size = fs::metadata(&file).expect("a file").len();
    let sender = sender(env, &file);
    let mut last = 0;
    for _ in 0..3 {
        let receiver = receiver(env, &folder);
        let grown = || stored(&folder) > last + 300_000;
        assert!(system::wait_until(soon(), grown), "nothing comes");
        drop(receiver);
        let now = stored(&folder);
        assert!(now > last && now < size, "{now} of {size} bytes");
        last = now;
    }
    complete(sender, receiver(env, &folder), &file, &folder);
}

fn send_file_changed(env: &Env) {
    const WHY: &str = "the sender does not keep to the rules: the checksum is wrong";
    let said = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let log = |command: &mut Command, path: &str| {
        command.stderr(fs::File::create(path).expect("a log"));
    };
    let (there, own) = (env.open_other(), env.expected().peer);
    for size in [10, 300_000, 1_000_000] {
        let (file, folder) = file_and_folder(size);
        let mut send = command(env, "ivshmem-send-file", true);
        send.arg("send").arg(&file);
        log(&mut send, "/tmp/sender.log");
        let sender = Program::start(send);
        // It has read the file through once it waits for a receiver.
        let waits = || there.state(own).expect("state") != 0;
        assert!(system::wait_until(soon(), waits), "it does not connect");
        let mut content = fs::read(&file).expect("read");
        content[size / 2] ^= 1;
        fs::write(&file, &content).expect("change it");
        let mut receive = command(env, "ivshmem-send-file", false);
        receive.arg("receive").arg(&folder).arg("--once");
        log(&mut receive, "/tmp/receiver.log");
        let receiver = Program::start(receive);
        assert_eq!(sender.ends(), Some(1));
        let words = said("/tmp/sender.log");
        let refused = format!("the receiver refuses: {WHY}");
        assert!(words.contains(&refused), "{words}");
        let says = || said("/tmp/receiver.log").contains(WHY);
        assert!(
            system::wait_until(soon(), says),
            "the receiver says nothing"
        );
        assert_eq!(fs::read_dir(&folder).expect("list").count(), 0);
        // As it is now it can be sent.
        complete(self::sender(env, &file), receiver, &file, &folder);
    }
}

fn send_nothing(env: &Env) {
    let run = |arguments: [&str; 2]| {
        let mut command = command(env, "ivshmem-send-file", true);
        let got = command.args(arguments).output().expect("run it");
        assert_eq!(got.status.code(), Some(1), "{arguments:?}");
        text(&got.stderr)
    };
    let words = run(["send", "/tmp/none"]);
    assert!(words.contains("/tmp/none: No such file"), "{words}");
    let words = run(["send", "/tmp/.."]);
    assert!(words.contains("has no name that could be sent"), "{words}");
    // The receiver finds out when a file comes.
    let (file, _) = file_and_folder(10);
    let sender = sender(env, &file);
    let mut command = command(env, "ivshmem-send-file", false);
    let got = command.args(["receive", "/tmp/no-such-folder"]).output();
    let got = got.expect("run it");
    assert_eq!(got.status.code(), Some(1));
    assert!(text(&got.stderr).contains("/tmp/no-such-folder"), "{got:?}");
    assert_eq!(sender.ends(), Some(1), "it was told why");
}
