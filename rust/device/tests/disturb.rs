// SPDX-License-Identifier: MIT OR Apache-2.0

//! Faults at any moment: what each command does to devices, memory and statistics, and how the
//! control socket answers.

mod support;

use ivshmem_device::control::Control;
use ivshmem_device::inmate::NotStarted;
use ivshmem_device::inmate::Running;
use ivshmem_device::link::SharedLink;
use ivshmem_device::link::Space;
use ivshmem_device::spec::LinkOptions;
use ivshmem_device::statistics::Peer;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use support::bench::*;
use support::wait_for;
use support::Setup;
use vfio_user::Client;

/// A link whose peers have brought up their devices, with counters at the ends of their lines, and
/// commands for it.
struct Scene {
    link: SharedLink,
    control: Control,
    lines: Vec<Vec<Counter>>,
}

impl Scene {
    fn new(options: LinkOptions) -> Self {
        let bench = Bench::new(options);
        let (link, lines) = bench.into_parts();
        let link = SharedLink::new(link);
        Self {
            control: Control::new(link.clone()),
            link,
            lines,
        }
    }

    fn run(&self, command: &str) -> String {
        let answer = self.control.run(command);
        answer.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    fn refused(&self, command: &str) -> String {
        let error = self.control.run(command).expect_err(command);
        error.to_string()
    }

    fn get(&self, peer: u16, register: u64) -> u32 {
        let mut data = [0; 4];
        let mut link = self.link.lock();
        link.read(peer, Space::Registers, register, &mut data);
        u32::from_le_bytes(data)
    }

    fn set(&self, peer: u16, register: u64, value: u32) {
        let mut link = self.link.lock();
        link.write(peer, Space::Registers, register, &value.to_le_bytes());
    }

    fn ring(&self, from: u16, to: u16, vector: u16) {
        self.set(from, DOORBELL, (u32::from(to) << 16) | u32::from(vector));
    }

    fn arrived(&self, peer: u16, vector: u16) -> u32 {
        self.lines[usize::from(peer)][usize::from(vector)].take()
    }

    fn word(&self, offset: usize) -> u32 {
        let mut data = [0; 4];
        let link = self.link.lock();
        link.region().read(offset, &mut data).expect("a word");
        u32::from_ne_bytes(data)
    }

    fn peer(&self, peer: u16) -> Peer {
        self.link.lock().snapshot(false).peers[usize::from(peer)].clone()
    }

    /// Nothing that a peer must not do was seen, and no canary is damaged.
    fn is_innocent(&self) -> bool {
        self.link.lock().snapshot(false).fatal_accesses == 0
    }
}

fn scene() -> Scene {
    Scene::new(LinkOptions::default())
}

/// As many peers, but peer 2 never comes.
fn three() -> Scene {
    let options = LinkOptions {
        max_peers: 3,
        ..LinkOptions::default()
    };
    let mut bench = Bench::empty(options);
    bench.come(0);
    bench.come(1);
    let (link, lines) = bench.into_parts();
    let link = SharedLink::new(link);
    Scene {
        control: Control::new(link.clone()),
        link,
        lines,
    }
}

#[test]
fn the_next_doorbells_are_lost_and_counted() {
    let scene = scene();
    scene.run("lose 1 2");
    assert_eq!(scene.run("status"), "lose=2@1");
    for _ in 0..3 {
        scene.ring(0, 1, 2);
        scene.ring(1, 0, 2);
    }
    assert_eq!(scene.arrived(1, 2), 1);
    assert_eq!(scene.arrived(0, 2), 3);
    assert_eq!(scene.peer(1).interrupts.dropped.lost, 2);
    assert_eq!(scene.peer(1).interrupts.delivered, 1);
    assert_eq!(scene.run("status"), "");
}

#[test]
fn each_nth_doorbell_is_lost_until_stop() {
    let scene = scene();
    scene.run("lose-every 1 2");
    (0..10).for_each(|_| scene.ring(0, 1, 1));
    assert_eq!(scene.arrived(1, 1), 5);
    scene.run("stop");
    (0..10).for_each(|_| scene.ring(0, 1, 1));
    assert_eq!(scene.arrived(1, 1), 10);
}

#[test]
fn intx_can_be_lost_too() {
    let scene = Scene::new(LinkOptions {
        vectors: 0,
        ..LinkOptions::default()
    });
    scene.run("lose 1 1");
    scene.ring(0, 1, 0);
    assert_eq!(scene.arrived(1, 0), 0);
    scene.ring(0, 1, 0);
    assert_eq!(scene.arrived(1, 0), 1);
}

#[test]
fn a_device_that_vanishes_reads_all_ones_and_is_silent() {
    let scene = scene();
    scene.set(1, STATE, 5);
    scene.arrived(0, 0);
    scene.run("vanish 1");
    for register in [ID, MAX_PEERS, INT_CTRL, STATE, 0x40] {
        assert_eq!(scene.get(1, register), u32::MAX);
    }
    let mut config = [0; 256];
    scene.link.lock().read(1, Space::Config, 0, &mut config);
    assert!(config.iter().all(|&byte| byte == 0xff));
    let mut memory = [0; 8];
    scene.link.lock().read(1, Space::Memory, 0, &mut memory);
    assert_eq!(memory, [0xff; 8]);
    // Writes have no effect, nor are they anybody's fault.
    scene.set(1, STATE, 6);
    scene.ring(1, 0, 3);
    let off = 0_u16.to_le_bytes();
    scene.link.lock().write(1, Space::Config, COMMAND, &off);
    scene.link.lock().write(1, Space::Memory, 0, &[1; 4]);
    scene.ring(0, 1, 3);
    assert_eq!((scene.arrived(0, 3), scene.arrived(1, 3)), (0, 0));
    let peer = scene.peer(1);
    assert_eq!(peer.interrupts.dropped.gone, 1);
    assert_eq!(peer.faults.gone_accesses, 11);
    assert!(scene.is_innocent());
    // To others nothing has happened.
    assert_eq!((scene.word(4), scene.get(0, ID)), (5, 0));

    scene.run("return 1");
    // It is a new one, where the old one was.
    assert_eq!((scene.get(1, ID), scene.get(1, STATE)), (1, 0));
    assert_eq!((scene.word(4), scene.arrived(0, 0)), (0, 1));
    assert_eq!(scene.get(1, INT_CTRL), 0);
    let mut command = [0; 2];
    scene
        .link
        .lock()
        .read(1, Space::Config, COMMAND, &mut command);
    assert_eq!(u16::from_le_bytes(command), COMMAND_MEMORY);
}

#[test]
fn with_its_memory_the_state_table_is_all_ones_until_it_returns() {
    let scene = scene();
    scene.set(0, STATE, 7);
    scene.run("vanish 1 memory");
    assert!((0..0x1000)
        .step_by(4)
        .all(|word| scene.word(word) == u32::MAX));
    scene.run("return 1");
    assert_eq!((scene.word(0), scene.word(4)), (7, 0));
    assert!((8..0x1000).step_by(4).all(|word| scene.word(word) == 0));
    assert!(scene.is_innocent());
}

#[test]
fn a_peer_that_dies_has_state_0_and_the_others_are_told() {
    let scene = scene();
    scene.set(1, STATE, 5);
    scene.arrived(0, 0);
    scene.run("die 1");
    assert_eq!((scene.word(4), scene.arrived(0, 0)), (0, 1));
    assert_eq!(scene.get(1, ID), u32::MAX);
    scene.run("return 1");
    assert_eq!((scene.get(1, ID), scene.get(1, INT_CTRL)), (1, 0));
}

#[test]
fn an_inmate_comes_and_dies() {
    let scene = three();
    scene.run("inmate 2:quiet");
    assert_eq!((scene.word(8), scene.arrived(0, 0)), (3, 1));
    assert_eq!(scene.run("status"), "inmate@2");
    assert!(scene.refused("inmate 2").contains("is there already"));
    assert!(scene.refused("vanish 2").contains("soft inmate"));
    scene.run("die 2");
    assert_eq!((scene.word(8), scene.arrived(0, 0)), (0, 1));
    scene.run("inmate 2:echo");
    assert_eq!(scene.word(8), 3);
}

// bad input: `inmate` for a peer that a client or another inmate is => `error`, one sentence; nothing has changed
#[test]
fn a_peer_is_one_at_a_time() {
    let scene = three();
    let seat = scene.link.take_seat(2).expect("nobody is there");
    assert!(scene.refused("inmate 2").contains("is there already"));
    drop(seat);
    scene.run("inmate 2:quiet");
    assert!(scene.link.take_seat(2).is_none());
    // Not even when its device looks as if nobody were there, as while it restarts.
    scene.link.lock().detach(2);
    let second = Running::start(&scene.link, "2:quiet".parse().unwrap());
    assert!(matches!(second, Err(NotStarted::Taken(2))));
    scene.run("die 2");
    let (_, states) = (scene.run("inmate 2:quiet"), scene.peer(2).state_changes);
    assert_eq!((scene.word(8), scene.run("status")), (3, "inmate@2".into()));
    assert!(scene.refused("inmate 2").contains("is there already"));
    assert_eq!((scene.word(8), scene.peer(2).state_changes), (3, states));
}

// bad input: `slow`, `vanish` or `hostile` for a soft inmate => `error`, one sentence: use a peer that has a socket
#[test]
fn what_a_soft_inmate_would_not_meet_is_refused() {
    let scene = three();
    scene.run("inmate 2:quiet");
    for command in ["slow 2 5", "vanish 2", "vanish 2 memory", "hostile 2 1"] {
        let error = scene.refused(command);
        assert!(error.contains("peer 2 is a soft inmate"), "{error}");
    }
    assert_eq!(scene.run("status"), "inmate@2");
    assert_eq!(scene.word(8), 3);
}

// bad input: `inmate` for a peer whose device was made slow, hostile, or gone => `error`, one sentence: `stop` it before
#[test]
fn no_soft_inmate_has_a_device_that_was_made_wrong() {
    let scene = three();
    for command in ["slow 2 5", "vanish 2", "die 2", "hostile 2 1"] {
        scene.run(command);
        let error = scene.refused("inmate 2");
        assert!(error.contains("was made wrong"), "{command}: {error}");
        scene.run("stop");
        scene.run("inmate 2:quiet");
        assert_eq!(scene.word(8), 3, "{command}");
        scene.run("die 2");
    }
}

// bad input: `inmate` for a peer whose device has a `--fault` => `error`, one sentence: use another peer
#[test]
fn no_soft_inmate_has_a_device_with_a_fault() {
    let scene = Scene::new(LinkOptions {
        faults: vec!["no-peers@1".parse().unwrap()],
        ..LinkOptions::default()
    });
    scene.link.lock().detach(1);
    let error = scene.refused("inmate 1");
    assert!(
        error.contains("peer 1 has the fault no-peers, which"),
        "{error}"
    );
    assert_eq!(scene.run("status"), "");
}

// bad input: `scribble` on a link with nothing but a state table => `error`, one sentence
#[test]
fn nobody_scribbles_where_there_is_nothing_to_scribble_on() {
    let scene = Scene::new(LinkOptions {
        rw_size: 0,
        output_size: 0,
        ..LinkOptions::default()
    });
    let error = scene.refused("scribble 0 1");
    assert!(error.contains("nothing to scribble on"), "{error}");
    assert_eq!(scene.run("status"), "");
}

#[test]
fn a_storm_rings_until_stop() {
    let scene = scene();
    scene.run("storm 1 0 3");
    assert!(scene.refused("storm 1 0 3").contains("going on already"));
    wait_for("a storm", || {
        (scene.peer(1).faults.storm_doorbells > 1000).then_some(())
    });
    scene.run("stop");
    let peer = scene.peer(1);
    assert_eq!(peer.doorbells.sent, peer.faults.storm_doorbells);
    assert_eq!(u64::from(scene.arrived(0, 3)), peer.doorbells.sent);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(scene.arrived(0, 3), 0, "stopped");
}

#[test]
fn garbage_states_are_published_as_by_the_device() {
    let scene = scene();
    scene.run("garbage 1 3");
    wait_for("garbage", || {
        (scene.peer(1).faults.garbage_states > 200).then_some(())
    });
    scene.run("stop");
    let peer = scene.peer(1);
    assert_eq!(u64::from(scene.arrived(0, 0)), peer.state_changes);
    assert_eq!(scene.word(4), scene.get(1, STATE));
    assert!(scene.is_innocent());
}

#[test]
fn a_garbage_table_is_put_right_at_the_end_and_is_nobody_s_fault() {
    let scene = three();
    scene.set(1, STATE, 9);
    scene.run("garbage-table 3");
    wait_for("garbage", || (scene.word(8) != 0).then_some(()));
    wait_for("garbage behind", || {
        (12..0x1000)
            .step_by(4)
            .any(|word| scene.word(word) != 0)
            .then_some(())
    });
    assert!(scene.is_innocent());
    scene.run("stop");
    assert_eq!((scene.word(4), scene.word(8)), (9, 0));
    assert!((12..0x1000).step_by(4).all(|word| scene.word(word) == 0));
    assert!(scene.is_innocent());
}

#[test]
fn a_scribbler_writes_its_sections_and_no_others() {
    let scene = three();
    scene.run("scribble 2 3");
    wait_for("scribbles", || {
        (scene.peer(2).faults.scribbled_words > 2000).then_some(())
    });
    let any = |from: usize, to: usize| (from..to).step_by(4).any(|word| scene.word(word) != 0);
    assert!(any(0x1000, 0xa000), "read/write section");
    assert!(any(0xe000, 0x1_0000), "output section of peer 2");
    assert!(!any(0, 0x1000) && !any(0xa000, 0xe000), "the rest");
    scene.run("stop");
    assert!(scene.is_innocent());
}

#[test]
fn a_hostile_device_lies_and_is_true_again_after_stop() {
    let scene = scene();
    let config = |scene: &Scene| {
        let mut bytes = [0; 256];
        scene.link.lock().read(1, Space::Config, 0, &mut bytes);
        bytes
    };
    let truth = config(&scene);
    let mut lies = 0;
    for seed in 0..20 {
        scene.run(&format!("hostile 1 {seed}"));
        let ids: Vec<_> = (0..40).map(|_| scene.get(1, ID)).collect();
        assert!(ids.contains(&1) && ids.iter().any(|&id| id != 1), "{ids:?}");
        lies += u32::from(config(&scene)[0x40..0x60] != truth[0x40..0x60]);
        scene.run("stop");
        assert_eq!(config(&scene), truth);
        assert!((0..40).all(|_| scene.get(1, ID) == 1));
    }
    assert!(
        (3..=17).contains(&lies),
        "{lies} of 20 capabilities are wrong"
    );
    scene.run("hostile 1 5");
    wait_for("interrupts", || {
        (scene.peer(1).faults.hostile_interrupts > 50).then_some(())
    });
    scene.run("stop");
    assert!((0x400..0x1000).step_by(4).all(|word| scene.word(word) == 0));
}

#[test]
fn the_same_seed_lies_in_the_same_way() {
    let lies = |seed: u32| {
        let scene = scene();
        scene.run(&format!("hostile 1 {seed}"));
        let ids: Vec<_> = (0..40).map(|_| scene.get(1, ID)).collect();
        let mut config = [0; 0x20];
        scene.link.lock().read(1, Space::Config, 0x40, &mut config);
        (ids, config)
    };
    assert_eq!(lies(11), lies(11));
    assert_ne!(lies(11).0, lies(12).0);
}

#[test]
fn nonsense_is_refused_in_one_sentence_and_changes_nothing() {
    let scene = scene();
    for (command, words) in [
        ("", "an empty command"),
        ("dance 1", "there is no command `dance`"),
        ("lose 1", "write `lose PEER COUNT`"),
        ("lose 1 2 3", "write `lose PEER COUNT`"),
        ("lose x 1", "`x` is not a value of PEER"),
        ("lose 0 -1", "`-1` is not a value of COUNT"),
        ("lose 0 4294967296", "from 0 to 4294967295"),
        ("lose 2 1", "there is no peer 2: the link has peers 0 to 1"),
        ("slow 0 60001", "from 0 to 60000"),
        ("vanish 0 now", "`now` means nothing there"),
        ("vanish", "write `vanish PEER [memory]`"),
        ("return 0", "is not gone"),
        (
            "storm 0 1 4",
            "there is no vector 4: the link has vectors 0 to 3",
        ),
        ("storm 0 7 0", "there is no peer 7"),
        ("inmate 1:dance", "there is no behaviour"),
        ("inmate 1", "is there already"),
        ("stop now", "`stop` takes no arguments"),
        ("hostile 0 seed", "`seed` is not a value of SEED"),
        ("garbage-table", "write `garbage-table SEED`"),
        ("statistics 9", "there is no peer 9"),
    ] {
        let error = scene.refused(command);
        assert!(error.contains(words), "{command}: {error}");
        assert!(!error.contains('\n'), "{command}: {error}");
    }
    assert_eq!(scene.run("status"), "");
}

#[test]
fn help_names_every_command() {
    let help = scene().run("help");
    for name in [
        "lose",
        "lose-every",
        "slow",
        "storm",
        "garbage",
        "garbage-table",
        "scribble",
        "die",
        "vanish",
        "return",
        "inmate",
        "hostile",
        "stop",
        "status",
        "statistics",
        "help",
    ] {
        assert!(
            help.contains(&format!("{name} ")) || help.contains(&format!("{name}: ")),
            "{name}"
        );
    }
}

/// Says lines at a control socket and gives the answers.
fn say(stream: &UnixStream, lines: &mut impl BufRead, command: &str) -> String {
    let mut stream = stream;
    stream
        .write_all(format!("{command}\n").as_bytes())
        .expect("said");
    let mut answer = String::new();
    lines.read_line(&mut answer).expect("an answer");
    answer
}

#[test]
fn the_socket_answers_each_line_with_one() {
    let mut setup = Setup::new(LinkOptions::default());
    let path = setup.directory.path().join("control.sock");
    setup.model.listen_for_commands(&path).expect("listening");
    // Two at once, and one that leaves in the middle.
    let first = UnixStream::connect(&path).expect("connected");
    let second = UnixStream::connect(&path).expect("connected");
    drop(UnixStream::connect(&path).expect("connected"));
    for stream in [&first, &second] {
        let mut lines = BufReader::new(stream);
        assert_eq!(say(stream, &mut lines, "lose 0 1"), "ok\n");
        assert_eq!(say(stream, &mut lines, "  status "), "ok lose=1@0\n");
        let error = say(stream, &mut lines, "lose 9 1");
        assert!(error.starts_with("error: there is no peer 9"), "{error}");
        let statistics = say(stream, &mut lines, "statistics 1");
        assert!(statistics.starts_with("ok {\"id\":1,"), "{statistics}");
        assert_eq!(say(stream, &mut lines, "stop"), "ok\n");
    }
    drop(setup.model);
    assert!(!path.exists(), "the socket is removed");
}

#[test]
fn a_control_socket_in_use_is_refused() {
    let mut setup = Setup::new(LinkOptions::default());
    let path = setup.socket(0);
    let error = setup.model.listen_for_commands(&path).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("somebody listens at"), "{error}");
    assert!(error.contains("choose another --control"), "{error}");
}

#[test]
fn a_slow_device_takes_its_time_and_others_do_not() {
    const DELAY: Duration = Duration::from_millis(3000);
    let setup = Setup::new(LinkOptions::default());
    let client = |peer| Client::new(&setup.socket(peer)).expect("a client");
    let (mut quick, mut slow) = (client(0), client(1));
    let read = |client: &mut Client| {
        let begin = Instant::now();
        let mut data = [0; 4];
        client.region_read(7, 0, &mut data).expect("read");
        assert_eq!(data, [0x0a, 0x11, 0x06, 0x41]);
        begin.elapsed()
    };
    let command = format!("slow 1 {}", DELAY.as_millis());
    setup.model.control().run(&command).expect("slow");
    thread::scope(|scope| {
        let slow = scope.spawn(move || read(&mut slow));
        wait_for("the slow device's access", || {
            (setup.peer(1).faults.slow_accesses == 1).then_some(())
        });
        // The other's answer does not wait for that of the slow one.
        read(&mut quick);
        assert!(!slow.is_finished(), "the quick device waited");
        assert!(slow.join().expect("read") >= DELAY);
    });
    assert_eq!(setup.peer(0).faults.slow_accesses, 0);
}
