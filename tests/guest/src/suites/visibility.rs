// SPDX-License-Identifier: MIT OR Apache-2.0
//! What sysfs, debugfs, uevents and fdinfo show of a device.

use super::{count_doorbells, drain, open_file, soon, wait, Env, Test};
use crate::system;
use ivshmem::{Deadline, Device, Error, EventBuffer, InterruptMode, Section, StateFlags, Subject};
use ivshmem_guest::plan::Plan;
use rustix::net::{self, netlink, AddressFamily, RecvFlags, SocketFlags, SocketType};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) const TESTS: &[Test] = &[
    Test::new("sysfs says what the info ioctl says", attributes),
    Test::new(
        "the ABI document names all sysfs attributes, and no others",
        documented,
    ),
    // bad input: writing to an attribute in sysfs => refused: they can only be read
    Test::new("sysfs attributes can only be read", read_only),
    Test::new("the state in sysfs is the published one", state_attribute),
    // bad input: reading an attribute that was open when the device went => `ENODEV`
    Test::new(
        "an attribute that was open when the device went is ENODEV",
        attribute_after_unbind,
    ),
    Test::new(
        "uevents tell of unbinding and binding, and attributes are there by then",
        uevents,
    ),
    Test::new(
        "debugfs counts interrupts as a file does, and doorbells rung",
        interrupts_counted,
    )
    .only_if(super::message_signalled),
    Test::two_peers("debugfs shows the states of other peers", peers_counted),
    Test::new("debugfs counts open files", files_counted),
    Test::new("debugfs counts wake-ups", wakeups_counted).only_if(super::message_signalled),
    // bad input: writing a line that means nothing to `pingpong` in debugfs => `EINVAL`; for a peer or vector that is not there: `ENXIO`
    Test::new(
        "debugfs measures round trips of doorbells between interrupt handlers",
        ping_pong,
    )
    .only_if(two_that_interrupt),
    // bad input: reading a counter in debugfs that was open when the device went => what it was when it was opened
    Test::new(
        "debugfs goes with the device, also from under a reader",
        debugfs_after_unbind,
    ),
    Test::new("debugfs begins with 0 after binding", counters_restart).only_if(super::interrupts),
    Test::new(
        "fdinfo shows how a file is open and who owns the state",
        fdinfo_state,
    ),
    Test::new(
        "fdinfo shows unseen doorbells, and looking leaves them unseen",
        fdinfo_unseen,
    )
    .only_if(super::message_signalled),
    Test::two_peers("fdinfo shows unseen state changes", fdinfo_states),
    Test::new("fdinfo shows subscriptions", fdinfo_subscriptions)
        .only_if(|plan| super::message_signalled(plan) && plan.devices[0].vectors > 1),
    Test::new(
        "fdinfo of a file whose device has gone says so",
        fdinfo_gone,
    ),
];

/// The name `ivshmemN`.
fn name(node: &Path) -> String {
    let name = node.file_name().expect("a name");
    name.to_str().expect("plain").into()
}

fn class_dir(env: &Env) -> PathBuf {
    Path::new(system::CLASS).join(name(env.node()))
}

fn debug_dir(node: &Path) -> PathBuf {
    Path::new("/sys/kernel/debug/ivshmem").join(name(node))
}

fn attribute(env: &Env, name: &str) -> String {
    let text = fs::read_to_string(class_dir(env).join(name)).expect(name);
    let value = text.strip_suffix('\n').expect("a line");
    assert!(!value.contains('\n'), "one value per file: {text:?}");
    value.into()
}

/// A counter in debugfs.
pub(super) fn counter(node: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(debug_dir(node).join(name)).expect(name);
    text.trim().parse().expect("a number")
}

/// A table in debugfs, by its first column.
pub(super) fn table(node: &Path, name: &str) -> BTreeMap<u64, Vec<u64>> {
    let text = fs::read_to_string(debug_dir(node).join(name)).expect(name);
    let number = |word: &str| word.parse().expect("a number");
    let row = |line: &str| line.split(' ').map(number).collect::<Vec<u64>>();
    let rows = text.lines().skip(1).map(row);
    rows.map(|row| (row[0], row[1..].to_vec())).collect()
}

fn unbind(env: &Env) {
    system::unbind(&env.expected().bdf()).expect("unbind");
}

fn bind(env: &Env) {
    system::bind(&env.expected().bdf()).expect("bind");
}

fn attributes(env: &Env) {
    let info = *env.open().info();
    let expected = env.expected();
    for (name, value) in [
        ("id", expected.peer.to_string()),
        ("max_peers", expected.peers.to_string()),
        ("vectors", expected.vectors.max(1).to_string()),
        ("vectors_enabled", info.vectors_enabled.to_string()),
        ("protocol", format!("0x{:04x}", expected.protocol)),
        ("region_size", format!("{:#x}", expected.region_size())),
        ("state", "0".into()),
        ("channels", "0".into()),
    ] {
        assert_eq!(attribute(env, name), value, "{name}");
    }
    let mode = match info.interrupt_mode {
        InterruptMode::MsiX => "msix",
        InterruptMode::Intx => "intx",
        InterruptMode::Polling => "polling",
        mode => panic!("{mode:?}"),
    };
    assert_eq!(attribute(env, "interrupt_mode"), mode);
    let polling = info.interrupt_mode == InterruptMode::Polling;
    let self_test = if polling { "not done" } else { "passed" };
    assert_eq!(attribute(env, "self_test"), self_test);
    section_attributes(env, "state_table", info.state_table);
    section_attributes(env, "rw", info.rw);
    section_attributes(env, "outputs", info.outputs);
    section_attributes(env, "output", info.output);
}

fn section_attributes(env: &Env, name: &str, section: Section) {
    let value = |what: &str| attribute(env, &format!("{name}/{what}"));
    assert_eq!(value("offset"), format!("{:#x}", section.offset), "{name}");
    assert_eq!(value("size"), format!("{:#x}", section.size), "{name}");
    let mappable = u8::from(section.is_mappable()).to_string();
    assert_eq!(value("mappable"), mappable, "{name}");
}

/// The attributes in the ABI document, as paths below the device's directory.
fn documented_attributes() -> BTreeSet<String> {
    let text = include_str!("../../../../Documentation/ABI/testing/sysfs-class-ivshmem");
    let device = "What:\t\t/sys/class/ivshmem/ivshmemN/";
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix(device))
        .collect();
    let (groups, names): (Vec<&str>, Vec<&str>) =
        names.iter().partition(|name| name.ends_with('/'));
    let expand = |name: &&str| match name.strip_prefix("<section>/") {
        Some(name) => groups
            .iter()
            .map(|group| format!("{group}{name}"))
            .collect(),
        None => vec![(*name).to_string()],
    };
    names.iter().flat_map(expand).collect()
}

/// The attributes in sysfs, without the kernel's own.
fn attributes_below(directory: &Path, prefix: &str) -> BTreeSet<String> {
    let own = ["dev", "device", "power", "subsystem", "uevent"];
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let name = entry.file_name().into_string().expect("plain");
        if entry.file_type().expect("a type").is_dir() && !own.contains(&name.as_str()) {
            found.extend(attributes_below(&entry.path(), &format!("{prefix}{name}/")));
        } else if !own.contains(&name.as_str()) {
            found.insert(format!("{prefix}{name}"));
        }
    }
    found
}

fn documented(env: &Env) {
    let documented = documented_attributes();
    assert!(documented.contains("output/size") && documented.contains("id"));
    assert_eq!(attributes_below(&class_dir(env), ""), documented);
}

fn read_only(env: &Env) {
    for name in ["id", "state", "protocol", "rw/offset", "output/size"] {
        let path = class_dir(env).join(name);
        let mode = fs::metadata(&path).expect(name).permissions().mode();
        assert_eq!(mode & 0o7777, 0o444, "{name}");
        // Root gets past the mode, but not past an attribute that cannot be stored.
        assert!(fs::write(&path, "1").is_err(), "{name}");
    }
}

fn state_attribute(env: &Env) {
    let device = env.open();
    for state in [7, 0xffff_ffff, 0] {
        let flags = StateFlags::default();
        device.set_state(state, flags).expect("publish");
        assert_eq!(attribute(env, "state"), state.to_string());
    }
}

fn attribute_after_unbind(env: &Env) {
    for name in ["id", "state", "interrupt_mode", "rw/size"] {
        let mut file = File::open(class_dir(env).join(name)).expect(name);
        unbind(env);
        let error = file.read(&mut [0; 64]).expect_err("no device");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{name}");
        assert!(!class_dir(env).exists());
        bind(env);
    }
}

/// A socket with the kernel's announcements of devices.
fn uevent_socket() -> OwnedFd {
    let socket = net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::KOBJECT_UEVENT),
    );
    let socket = socket.expect("a netlink socket");
    net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 1)).expect("bind the socket");
    socket
}

/// Waits for what is announced as `ACTION@PATH`; its variables.
fn uevent(socket: &OwnedFd, action: &str, device: &str) -> Vec<String> {
    let mut buffer = [0; 8192];
    loop {
        let (length, _) = net::recv(socket, &mut buffer, RecvFlags::empty()).expect("recv");
        let text = String::from_utf8_lossy(&buffer[..length]);
        let mut words = text.split('\0').map(String::from);
        let header = words.next().unwrap_or_default();
        let ours = format!("/ivshmem/{device}");
        if header.starts_with(&format!("{action}@")) && header.ends_with(&ours) {
            return words.collect();
        }
    }
}

fn uevents(env: &Env) {
    let device = name(env.node());
    let socket = uevent_socket();
    unbind(env);
    uevent(&socket, "remove", &device);
    assert!(!class_dir(env).exists());
    bind(env);
    let variables = uevent(&socket, "add", &device);
    for variable in ["SUBSYSTEM=ivshmem".into(), format!("DEVNAME={device}")] {
        assert!(variables.contains(&variable), "{variables:?}");
    }
    assert_eq!(attribute(env, "id"), env.expected().peer.to_string());
    assert_eq!(
        attribute(env, "rw/offset"),
        format!("{:#x}", env.expected().state_size)
    );
}

fn interrupts_counted(env: &Env) {
    let device = env.open();
    let (own, vector) = (device.info().id, device.info().vectors_enabled - 1);
    let interrupts = || table(env.node(), "vectors")[&u64::from(vector)].clone();
    let before = (interrupts(), counter(env.node(), "doorbells_rung"));
    let mut taken = 0;
    for _ in 0..5 {
        device.ring(own, vector).expect("ring");
        taken += count_doorbells(&device, vector, 1);
    }
    let after = (interrupts(), counter(env.node(), "doorbells_rung"));
    assert_eq!(after.0[0] - before.0[0], taken);
    assert!(after.0[1] > before.0[1], "the time of the last");
    assert_eq!(after.1 - before.1, 5);
    // A doorbell that is refused is not rung.
    device
        .ring(own, device.info().vectors)
        .expect_err("no such vector");
    assert_eq!(counter(env.node(), "doorbells_rung"), after.1);
    let vectors = table(env.node(), "vectors");
    assert!(vectors
        .keys()
        .copied()
        .eq(0..u64::from(env.expected().vectors)));
}

fn peers_counted(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    let own = u64::from(device.info().id);
    let other_node = &env.nodes[1].1;
    let before = table(other_node, "peers")[&own].clone();
    let mut changes = 0;
    for state in [7, 9] {
        device
            .set_state(state, StateFlags::default())
            .expect("publish");
        while !matches!(table(other_node, "peers")[&own][..], [s, ..] if s == u64::from(state)) {
            wait(&other);
        }
        changes += 1;
    }
    let after = table(other_node, "peers")[&own].clone();
    assert_eq!(after[1] - before[1], changes);
    assert!(after[2] > before[2], "the time of the last");
    let listed = table(env.node(), "peers");
    assert!(!listed.contains_key(&own), "only other peers");
    assert_eq!(listed.len() as u32, device.info().max_peers - 1);
}

fn files_counted(env: &Env) {
    let open = || counter(env.node(), "files_open");
    assert_eq!(open(), 0);
    let first = env.open();
    let second = open_file(env.node(), true, false, 0);
    assert_eq!(open(), 2);
    let copy = first.as_fd().try_clone_to_owned().expect("dup");
    drop(first);
    assert_eq!(open(), 2, "a duplicate keeps the file open");
    drop((copy, second));
    assert_eq!(open(), 0);
}

fn wakeups_counted(env: &Env) {
    let device = env.open();
    let (own, vector) = (device.info().id, device.info().vectors_enabled - 1);
    let before = counter(env.node(), "wakeups");
    assert!(drain(&device).is_empty());
    assert_eq!(counter(env.node(), "wakeups"), before, "nobody has waited");
    for round in 1..=3 {
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| wait(&device));
            let asleep = || system::threads_in(&[libc::SYS_ioctl]) == 1;
            assert!(system::wait_until(soon(), asleep), "nobody waits");
            device.ring(own, vector).expect("ring");
            waiter.join().expect("woken");
        });
        assert!(counter(env.node(), "wakeups") >= before + round);
    }
    // Being woken by what the file does not want is none.
    device
        .subscribe(Subject::AllVectors, false)
        .expect("unsubscribe");
    let before = counter(env.node(), "wakeups");
    let deadline = Deadline::after(std::time::Duration::from_secs(1));
    let mut buffer = EventBuffer::new(4);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| device.events(&mut buffer, deadline).map(drop));
        let asleep = || system::threads_in(&[libc::SYS_ioctl]) == 1 || waiter.is_finished();
        assert!(system::wait_until(soon(), asleep), "nobody waits");
        device.ring(own, vector).expect("ring");
        assert_eq!(waiter.join().expect("no panic"), Err(Error::TimedOut));
    });
    assert_eq!(counter(env.node(), "wakeups"), before);
}

fn two_that_interrupt(plan: &Plan) -> bool {
    let devices = &plan.devices;
    super::message_signalled(plan) && devices.len() >= 2 && devices[0].link == devices[1].link
}

fn ping_pong(env: &Env) {
    let (own, other) = (env.node(), &env.nodes[1].1);
    let file = |node| debug_dir(node).join("pingpong");
    let said = |node| fs::read_to_string(file(node)).expect("read");
    let device = env.open();
    let (id, other_id) = (device.info().id, env.open_other().info().id);
    let vector = device.info().vectors_enabled - 1;
    assert_eq!(said(own), "off\n");
    let (peers, vectors) = (device.info().max_peers, device.info().vectors);
    let long = format!("answer {}0 1", " ".repeat(60));
    for (line, errno) in [
        ("", libc::EINVAL),
        ("dance", libc::EINVAL),
        ("off 1", libc::EINVAL),
        ("answer 1", libc::EINVAL),
        ("answer 0 x", libc::EINVAL),
        ("ask 0 0 0", libc::EINVAL),
        ("ask 0 0 4097", libc::EINVAL),
        ("ask 0 0 1 1", libc::EINVAL),
        (&long, libc::EINVAL),
        (&format!("answer {peers} 0"), libc::ENXIO),
        (&format!("ask 0 {vectors} 1"), libc::ENXIO),
    ] {
        // An empty write would not reach the driver.
        let line = format!("{line}\n");
        let error = fs::write(file(own), &line).expect_err(&line);
        assert_eq!(error.raw_os_error(), Some(errno), "{line}");
    }
    assert_eq!(said(own), "off\n");
    fs::write(file(other), format!("answer {id} {vector}\n")).expect("answer");
    assert_eq!(said(other), "answering\n");
    for count in [1, 100] {
        fs::write(file(own), format!("ask {other_id} {vector} {count}\n")).expect("ask");
        let wanted = format!("{count} round trips, median ");
        let done = system::wait_until(soon(), || said(own).starts_with(&wanted));
        assert!(done, "{}", said(own));
        // As often as one likes.
        assert!(said(own).starts_with(&wanted));
    }
    for node in [own, other] {
        fs::write(file(node), "off\n").expect("off");
        assert_eq!(said(node), "off\n");
    }
    // Nobody answers any more.
    fs::write(file(own), format!("ask {other_id} {vector} 2\n")).expect("ask");
    assert_eq!(said(own), "asking\n");
    fs::write(file(own), "off\n").expect("off");
}

fn debugfs_after_unbind(env: &Env) {
    let directory = debug_dir(env.node());
    let files = [
        "vectors",
        "peers",
        "files_open",
        "wakeups",
        "doorbells_rung",
    ];
    let mut open: Vec<_> = files
        .iter()
        .map(|name| File::open(directory.join(name)).expect(name))
        .collect();
    unbind(env);
    assert!(!directory.exists());
    for (name, file) in files.iter().zip(&mut open) {
        let mut text = String::new();
        file.read_to_string(&mut text).expect(name);
        assert!(text.ends_with('\n'), "{name}: {text:?}");
    }
    bind(env);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !stop.load(Ordering::Relaxed) {
                match fs::read_to_string(directory.join("vectors")) {
                    Ok(_) => reads += 1,
                    Err(error) => assert!(is_gone(&error), "{error}"),
                }
            }
            reads
        });
        // On a kernel with all checkers this takes a second each time, with a line several.
        let rounds = if super::message_signalled(&env.plan) {
            5
        } else {
            2
        };
        for _ in 0..rounds {
            unbind(env);
            bind(env);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().expect("the reader") > 0, "never read");
    });
}

/// Whether an error is what a reader may see when a debugfs file goes.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EIO))
}

fn counters_restart(env: &Env) {
    let interrupts = || table(env.node(), "vectors")[&0][0];
    let device = env.open();
    for _ in 0..5 {
        device.ring(device.info().id, 0).expect("ring");
        count_doorbells(&device, 0, 1);
    }
    drop(device);
    assert!(interrupts() >= 5 && counter(env.node(), "doorbells_rung") >= 5);
    unbind(env);
    bind(env);
    assert_eq!(counter(env.node(), "doorbells_rung"), 0);
    assert!(interrupts() < 5, "the self-test may have left some");
}

/// The lines of fdinfo that are ours.
pub(super) fn fdinfo(file: impl AsFd) -> BTreeMap<String, String> {
    let path = format!("/proc/self/fdinfo/{}", file.as_fd().as_raw_fd());
    let text = fs::read_to_string(path).expect("fdinfo");
    let ours = text
        .lines()
        .filter_map(|line| line.strip_prefix("ivshmem-"));
    ours.map(|line| line.split_once(":\t").expect("a colon and a tab"))
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

fn publish(device: &Device, flags: StateFlags) {
    device.set_state(7, flags).expect("publish");
}

fn fdinfo_state(env: &Env) {
    let read_only = open_file(env.node(), true, false, 0);
    let write_only = open_file(env.node(), false, true, 0);
    let (device, second) = (env.open(), env.open());
    assert_eq!(fdinfo(&read_only)["mode"], "read-only");
    assert_eq!(fdinfo(&write_only)["mode"], "write-only");
    assert_eq!(fdinfo(&device)["mode"], "read-write");
    let number = name(env.node()).replace("ivshmem", "");
    assert_eq!(fdinfo(&device)["device"], number);
    assert_ne!(fdinfo(&device)["file"], fdinfo(&second)["file"]);

    let states = || {
        (
            fdinfo(&device)["state"].clone(),
            fdinfo(&second)["state"].clone(),
        )
    };
    let expect = |first: &str, second: &str| assert_eq!(states(), (first.into(), second.into()));
    expect("nobody's", "nobody's");
    publish(&device, StateFlags::default());
    expect("own", "another file's");
    publish(&device, StateFlags::default().keep());
    expect("own, kept", "another file's");
    publish(&second, StateFlags::default().take_over());
    expect("another file's", "own");
    drop(second);
    assert_eq!(fdinfo(&device)["state"], "nobody's");
}

fn fdinfo_unseen(env: &Env) {
    let (device, second) = (env.open(), env.open());
    let (own, vector) = (device.info().id, device.info().vectors_enabled - 1);
    assert_eq!(fdinfo(&device)["unseen-doorbells"], "");
    device.ring(own, vector).expect("ring");
    let unseen = || fdinfo(&device)["unseen-doorbells"].clone();
    let there = || unseen() == format!("{vector}:1");
    assert!(system::wait_until(soon(), there), "{}", unseen());
    assert!(there(), "looking has consumed it");
    assert_eq!(count_doorbells(&second, vector, 1), 1);
    assert!(there(), "another file has consumed it");
    assert_eq!(count_doorbells(&device, vector, 1), 1);
    assert_eq!(unseen(), "");
}

fn fdinfo_states(env: &Env) {
    let device = env.open();
    // Where states are polled, one that comes back between two looks is no change.
    let id = u64::from(device.info().id);
    let absent = || table(env.other_node(), "peers")[&id][0] == 0;
    assert!(system::wait_until(soon(), absent), "a state is left over");
    let other = env.open_other();
    publish(&device, StateFlags::default());
    let unseen = || fdinfo(&other)["unseen-states"].clone();
    let there = || {
        unseen()
            .split(' ')
            .any(|word| word == format!("{}:1", device.info().id))
    };
    assert!(system::wait_until(soon(), there), "{}", unseen());
    wait(&other);
    assert!(!there(), "{}", unseen());
}

fn fdinfo_subscriptions(env: &Env) {
    let device = env.open();
    let subscribed = |what: &str| fdinfo(&device)[&format!("subscribed-{what}")].clone();
    assert_eq!(
        (subscribed("vectors"), subscribed("peers")),
        ("all".into(), "all".into())
    );
    for subject in [Subject::AllVectors, Subject::AllPeers] {
        device.subscribe(subject, false).expect("unsubscribe");
    }
    assert_eq!(
        (subscribed("vectors"), subscribed("peers")),
        (String::new(), String::new())
    );
    let enabled = device.info().vectors_enabled;
    let (vectors, expected) = match enabled {
        4.. => (&[0, 1, 3][..], "0-1,3"),
        _ => (&[0][..], "0"),
    };
    for &vector in vectors {
        device
            .subscribe(Subject::Vector(vector), true)
            .expect("subscribe");
    }
    device.subscribe(Subject::Peer(1), true).expect("subscribe");
    assert_eq!(
        (subscribed("vectors"), subscribed("peers")),
        (expected.into(), "1".into())
    );
}

fn fdinfo_gone(env: &Env) {
    let device = env.open();
    assert_eq!(fdinfo(&device)["gone"], "0");
    unbind(env);
    assert_eq!(fdinfo(&device)["gone"], "1");
    bind(env);
    assert_eq!(fdinfo(&device)["gone"], "1", "for good");
}
