// SPDX-License-Identifier: MIT OR Apache-2.0

//! The model over its sockets, driven by the client of the crate `vfio_user`: what a client is told
//! of the device, interrupts, and clients that come and go.

mod support;

use ivshmem_device::inmate::Behaviour;
use ivshmem_device::inmate::InmateSpec;
use ivshmem_device::inmate::GREETING;
use ivshmem_device::server::Model;
use ivshmem_device::server::StartError;
use ivshmem_device::spec::LinkOptions;
use ivshmem_device::spec::LinkSpec;
use ivshmem_device::spec::Protection;
use ivshmem_device::spec::Shape;
use ivshmem_device::statistics::LeftBehind;
use rustix::event::eventfd;
use rustix::event::EventfdFlags;
use std::fs;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use support::bench::*;
use support::wait_for;
use support::Setup;
use vfio_user::Client;

const BAR_0: u32 = 0;
const BAR_2: u32 = 2;
const BAR_4: u32 = 4;
const CONFIG: u32 = 7;

const INTX: u32 = 0;
const MSIX: u32 = 2;

const DATA_NONE: u32 = 1;
const DATA_EVENTFD: u32 = 4;
const MASK: u32 = 8;
const UNMASK: u32 = 16;
const TRIGGER: u32 = 32;

/// A client with its end of the interrupt lines.
struct Guest {
    client: Client,
    lines: Vec<File>,
}

impl Guest {
    /// Connects and brings the device up as a driver does.
    fn new(setup: &Setup, peer: u16) -> Self {
        let client = Client::new(&setup.socket(peer)).expect("the model accepts");
        let vectors = setup.model.link().lock().spec().options().vectors;
        let mut guest = Self {
            client,
            lines: (0..vectors.max(1)).map(|_| line()).collect(),
        };
        guest.config_u16(COMMAND, COMMAND_MEMORY | COMMAND_MASTER);
        guest.connect_lines(vectors);
        guest.set(INT_CTRL, 1);
        guest
    }

    /// As QEMU does it: first vector 0 off, then one message per vector.
    fn connect_lines(&mut self, vectors: u16) {
        if vectors == 0 {
            let fds = [self.lines[0].as_raw_fd()];
            self.irqs(INTX, DATA_EVENTFD | TRIGGER, 0, 1, &fds);
            return;
        }
        self.config_u16(MSIX_CONTROL, MSIX_ENABLE);
        self.irqs(MSIX, DATA_EVENTFD | TRIGGER, 0, 1, &[]);
        for vector in 0..u32::from(vectors) {
            let fds = [self.lines[vector as usize].as_raw_fd()];
            self.irqs(MSIX, DATA_EVENTFD | TRIGGER, vector, 1, &fds);
        }
    }

    fn irqs(&mut self, index: u32, flags: u32, start: u32, count: u32, fds: &[i32]) {
        let set = self.client.set_irqs(index, flags, start, count, fds);
        set.expect("the model answers");
    }

    fn config_u16(&mut self, offset: u64, value: u16) {
        let written = self
            .client
            .region_write(CONFIG, offset, &value.to_le_bytes());
        written.expect("the model answers");
    }

    fn get(&mut self, register: u64) -> u32 {
        let mut data = [0; 4];
        let read = self.client.region_read(BAR_0, register, &mut data);
        read.expect("the model answers");
        u32::from_le_bytes(data)
    }

    fn set(&mut self, register: u64, value: u32) {
        let written = self
            .client
            .region_write(BAR_0, register, &value.to_le_bytes());
        written.expect("the model answers");
    }

    fn ring(&mut self, to: u16, vector: u16) {
        self.set(DOORBELL, (u32::from(to) << 16) | u32::from(vector));
    }

    /// How many interrupts have arrived since this was last asked.
    fn arrived(&mut self, vector: u16) -> u64 {
        let mut count = [0; 8];
        match (&self.lines[usize::from(vector)]).read_exact(&mut count) {
            Ok(()) => u64::from_ne_bytes(count),
            Err(_) => 0,
        }
    }

    fn wait_interrupt(&mut self, vector: u16) {
        wait_for("an interrupt", || (self.arrived(vector) > 0).then_some(()));
    }

    /// The file behind the memory.
    fn memory(&self, bar: u32) -> &File {
        let region = self.client.region(bar).expect("the memory's BAR");
        let file = region.file_offset.as_ref().expect("it can be mapped");
        assert_eq!(file.start(), 0);
        file.file()
    }

    fn areas(&self, bar: u32) -> Vec<(u64, u64)> {
        let region = self.client.region(bar).expect("the memory's BAR");
        let areas = region.sparse_areas.iter();
        areas.map(|area| (area.offset, area.size)).collect()
    }
}

fn line() -> File {
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    File::from(fd.expect("an eventfd"))
}

fn word(file: &File, offset: u64) -> u32 {
    let mut data = [0; 4];
    file.read_exact_at(&mut data, offset).expect("a word");
    u32::from_ne_bytes(data)
}

fn options(change: impl FnOnce(&mut LinkOptions)) -> LinkOptions {
    let mut options = LinkOptions::default();
    change(&mut options);
    options
}

#[test]
fn regions_are_those_of_the_shape() {
    for (shape, bars) in [
        (Shape::Jailhouse, [0x1000, 0x1000, 0, 0, 0x10000, 0]),
        (Shape::Bar2, [0x1000, 0x1000, 0x10000, 0, 0, 0]),
    ] {
        let setup = Setup::new(options(|o| o.shape = shape));
        let guest = Guest::new(&setup, 0);
        let size = |n| guest.client.region(n).expect("a region").size;
        for (n, expected) in (0..).zip(bars) {
            assert_eq!(size(n), expected, "{shape:?}, BAR {n}");
        }
        assert_eq!((size(6), size(CONFIG), size(8)), (0, 256, 0));
    }
}

#[test]
fn trap_lets_a_client_map_only_what_its_guest_may_write() {
    let setup = Setup::new(options(|o| o.max_peers = 3));
    let areas: Vec<_> = (0..3).map(|n| Guest::new(&setup, n).areas(BAR_4)).collect();
    assert_eq!(areas[0], [(0x1000, 0xb000)]);
    assert_eq!(areas[1], [(0x1000, 0x9000), (0xc000, 0x2000)]);
    assert_eq!(areas[2], [(0x1000, 0x9000), (0xe000, 0x2000)]);
}

#[test]
fn mapped_lets_a_client_map_everything() {
    let setup = Setup::new(options(|o| {
        (o.protection, o.shape) = (Protection::Mapped, Shape::Bar2);
    }));
    assert_eq!(Guest::new(&setup, 1).areas(BAR_2), [(0, 0x10000)]);
}

#[test]
fn interrupts_are_those_of_the_link() {
    for (vectors, intx, msix) in [(0, (7, 1), (0, 0)), (16, (0, 0), (1, 16))] {
        let setup = Setup::new(options(|o| o.vectors = vectors));
        let mut guest = Guest::new(&setup, 0);
        let mut info = |index| {
            let info = guest.client.get_irq_info(index).expect("the model answers");
            (info.flags, info.count)
        };
        assert_eq!(info(INTX), intx, "{vectors} vectors");
        assert_eq!(info(MSIX), msix, "{vectors} vectors");
        for other in [1, 3, 4] {
            assert_eq!(info(other), (0, 0));
        }
    }
}

#[test]
fn both_clients_have_the_same_memory() {
    let setup = Setup::new(LinkOptions::default());
    let (a, b) = (Guest::new(&setup, 0), Guest::new(&setup, 1));
    let hello = 0x0102_0304_u32.to_ne_bytes();
    a.memory(BAR_4).write_all_at(&hello, 0x1000).unwrap();
    assert_eq!(word(b.memory(BAR_4), 0x1000), 0x0102_0304);
}

#[test]
fn a_doorbell_reaches_the_eventfd_of_its_vector_at_once() {
    let setup = Setup::new(LinkOptions::default());
    let (mut a, mut b) = (Guest::new(&setup, 0), Guest::new(&setup, 1));
    for vector in 0..4 {
        // The doorbell is answered after the eventfd has been written.
        a.ring(1, vector);
        assert_eq!(b.arrived(vector), 1, "vector {vector}");
        a.ring(0, vector);
        assert_eq!(a.arrived(vector), 1, "vector {vector}");
    }
    let sent = setup.peer(0).doorbells.sent;
    assert_eq!((sent, setup.peer(1).interrupts.delivered), (8, 4));
}

#[test]
fn no_doorbell_is_lost_or_made_up_when_all_ring_at_once() {
    const ROUNDS: u32 = 5_000;
    const PEERS: u16 = 4;
    let setup = Setup::new(options(|o| o.max_peers = PEERS));
    let mut guests: Vec<_> = (0..PEERS).map(|n| Guest::new(&setup, n)).collect();
    thread::scope(|scope| {
        for (id, guest) in (0..).zip(&mut guests) {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    guest.ring((id + 1) % PEERS, (round % 4) as u16);
                    guest.set(STATE, round + 1);
                }
            });
        }
    });
    let states = u64::from(ROUNDS) * u64::from(PEERS - 1);
    for (id, guest) in (0..).zip(&mut guests) {
        let arrived: Vec<_> = (0..4).map(|vector| guest.arrived(vector)).collect();
        let rung = u64::from(ROUNDS / 4);
        assert_eq!(arrived, [rung + states, rung, rung, rung], "peer {id}");
        assert_eq!(word(guest.memory(BAR_4), 4 * id), ROUNDS);
    }
    let statistics = setup.statistics();
    assert_eq!(statistics.fatal_accesses, 0);
    for peer in &statistics.peers {
        assert_eq!(peer.doorbells.sent, u64::from(ROUNDS));
        assert_eq!(peer.interrupts.dropped.total(), 0);
    }
}

#[test]
fn a_vector_switched_off_is_dropped_and_msix_off_switches_all_off() {
    let setup = Setup::new(LinkOptions::default());
    let (mut a, mut b) = (Guest::new(&setup, 0), Guest::new(&setup, 1));
    b.irqs(MSIX, DATA_EVENTFD | TRIGGER, 2, 1, &[]);
    a.ring(1, 2);
    assert_eq!(b.arrived(2), 0);
    a.ring(1, 1);
    assert_eq!(b.arrived(1), 1);
    b.irqs(MSIX, DATA_NONE | TRIGGER, 0, 0, &[]);
    a.ring(1, 1);
    assert_eq!(b.arrived(1), 0);
    assert_eq!(setup.peer(1).interrupts.dropped.vector_off, 2);
}

#[test]
fn intx_needs_its_end_of_interrupt_and_merges_until_then() {
    let setup = Setup::new(options(|o| o.vectors = 0));
    let (mut a, mut b) = (Guest::new(&setup, 0), Guest::new(&setup, 1));
    for _ in 0..3 {
        a.ring(1, 0);
    }
    assert_eq!(b.arrived(0), 1);
    b.irqs(INTX, DATA_NONE | UNMASK, 0, 1, &[]);
    assert_eq!(b.arrived(0), 1);
    b.irqs(INTX, DATA_NONE | UNMASK, 0, 1, &[]);
    assert_eq!(b.arrived(0), 0);
    b.irqs(INTX, DATA_NONE | MASK, 0, 1, &[]);
    a.ring(1, 0);
    assert_eq!(b.arrived(0), 0);
    b.irqs(INTX, DATA_NONE | UNMASK, 0, 1, &[]);
    assert_eq!(b.arrived(0), 1);
    let interrupts = setup.peer(1).interrupts;
    assert_eq!((interrupts.delivered, interrupts.merged), (3, 3));
}

#[test]
fn nonsense_from_a_client_is_answered_and_changes_nothing() {
    let setup = Setup::new(LinkOptions::default());
    let (mut a, mut b) = (Guest::new(&setup, 0), Guest::new(&setup, 1));
    a.irqs(MSIX, DATA_EVENTFD | TRIGGER, u32::MAX, u32::MAX, &[]);
    a.irqs(MSIX, DATA_NONE | UNMASK, 0, 1, &[]);
    a.irqs(INTX, DATA_EVENTFD | UNMASK, 0, 1, &[]);
    a.irqs(4, DATA_NONE | TRIGGER, 0, 1, &[]);
    let mut data = [0xff; 64];
    for region in [1, 3, 5, 6, 8] {
        a.client
            .region_read(region, u64::MAX - 7, &mut data)
            .unwrap();
        a.client.region_write(region, u64::MAX - 7, &data).unwrap();
    }
    for region in [BAR_0, BAR_4, CONFIG] {
        a.client.region_write(region, u64::MAX - 7, &data).unwrap();
        a.client.region_read(region, 0, &mut []).unwrap();
    }
    b.ring(0, 3);
    assert_eq!(a.arrived(3), 1);
    assert_eq!(a.get(ID), 0);
}

#[test]
fn reset_keeps_the_lines_and_clears_the_state() {
    let setup = Setup::new(LinkOptions::default());
    let (mut a, mut b) = (Guest::new(&setup, 0), Guest::new(&setup, 1));
    b.set(STATE, 2);
    assert_eq!(a.arrived(0), 1);
    b.client.reset().unwrap();
    assert_eq!(a.arrived(0), 1);
    assert_eq!(word(a.memory(BAR_4), 4), 0);
    b.config_u16(COMMAND, COMMAND_MEMORY | COMMAND_MASTER);
    b.config_u16(MSIX_CONTROL, MSIX_ENABLE);
    assert_eq!((b.get(STATE), b.get(INT_CTRL)), (0, 0));
    b.set(INT_CTRL, 1);
    a.ring(1, 1);
    assert_eq!(b.arrived(1), 1);
    assert_eq!(setup.peer(1).resets, 1);
}

#[test]
fn peer_dies_and_the_other_is_told_and_goes_on() {
    let setup = Setup::new(LinkOptions::default());
    let (mut a, mut b) = (Guest::new(&setup, 0), Guest::new(&setup, 1));
    b.set(STATE, 2);
    b.memory(BAR_4).write_all_at(&[9, 0, 0, 0], 0x1000).unwrap();
    assert_eq!(a.arrived(0), 1);
    drop(b);
    a.wait_interrupt(0);
    assert_eq!(word(a.memory(BAR_4), 4), 0);
    assert_eq!(word(a.memory(BAR_4), 0x1000), 9);
    a.ring(1, 0);
    a.set(STATE, 1);
    assert_eq!(a.get(STATE), 1);
}

#[test]
fn a_peer_that_comes_back_works_again() {
    let setup = Setup::new(LinkOptions::default());
    let mut a = Guest::new(&setup, 0);
    for round in 1..=5 {
        let mut b = Guest::new(&setup, 1);
        assert_eq!(b.get(STATE), 0);
        b.set(STATE, round);
        a.wait_interrupt(0);
        a.ring(1, 3);
        assert_eq!(b.arrived(3), 1);
        drop(b);
        a.wait_interrupt(0);
    }
    let peer = setup.peer(1);
    assert_eq!((peer.attaches, peer.detaches), (5, 5));
    let left = LeftBehind {
        interrupts: true,
        state: 5,
    };
    assert_eq!(
        peer.left_behind, left,
        "of one that went without a shutdown"
    );
    a.set(STATE, 7);
    let left = LeftBehind { state: 7, ..left };
    assert_eq!(setup.peer(0).left_behind, left, "of one that is there");
    a.set(STATE, 0);
    a.set(INT_CTRL, 0);
    assert_eq!(setup.peer(0).left_behind, LeftBehind::default());
}

#[test]
fn a_client_that_breaks_the_protocol_takes_only_itself_down() {
    let setup = Setup::new(LinkOptions::default());
    let mut a = Guest::new(&setup, 0);
    // Version with data that does not end in NUL: the crate panics.
    let mut bad = UnixStream::connect(setup.socket(1)).unwrap();
    let message = [1, 0, 1, 0, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bad.write_all(&message).unwrap();
    bad.write_all(&[0, 0, 1, 0, b'x']).unwrap();
    assert_eq!(bad.read(&mut [0]).unwrap(), 0, "the model hangs up");
    // Half a message, then gone.
    let mut half = UnixStream::connect(setup.socket(1)).unwrap();
    half.write_all(&message[..7]).unwrap();
    drop(half);
    let mut b = Guest::new(&setup, 1);
    a.ring(1, 1);
    assert_eq!(b.arrived(1), 1);
}

#[test]
fn statistics_survive_json() {
    let setup = Setup::new(LinkOptions::default());
    let _a = Guest::new(&setup, 0);
    let statistics = setup.statistics();
    let json = serde_json::to_string(&statistics).unwrap();
    let back: ivshmem_device::statistics::Statistics = serde_json::from_str(&json).unwrap();
    assert_eq!(back, statistics);
}

#[test]
fn echo_inmate_rings_back_on_the_same_vector_with_what_peer_0_has_to_say() {
    for vectors in [0, 4] {
        let inmate = InmateSpec {
            peer: 1,
            behaviour: Behaviour::Echo,
        };
        let setup = Setup::with_inmates(options(|o| o.vectors = vectors), &[inmate]);
        let mut a = Guest::new(&setup, 0);
        assert_eq!(word(a.memory(BAR_4), 4), 2, "state is ID + 1");
        a.set(STATE, 1);
        for n in 0..20_u32 {
            let vector = match vectors {
                0 => 0,
                _ => (n % 4) as u16,
            };
            let memory = a.memory(BAR_4);
            memory.write_all_at(&n.to_ne_bytes(), 0xa000).unwrap();
            a.ring(1, vector);
            a.wait_interrupt(vector);
            assert_eq!(word(a.memory(BAR_4), 0xc000), n);
            if vectors == 0 {
                a.irqs(INTX, DATA_NONE | UNMASK, 0, 1, &[]);
            }
        }
        let peer = setup.peer(1);
        assert_eq!((peer.doorbells.sent, peer.fatal_accesses), (20, 0));
        assert_eq!(setup.peer(0).interrupts.delivered, 20);
    }
}

#[test]
fn quiet_inmate_counts_and_greets() {
    let inmate = InmateSpec {
        peer: 1,
        behaviour: Behaviour::Quiet,
    };
    let setup = Setup::with_inmates(LinkOptions::default(), &[inmate]);
    let mut a = Guest::new(&setup, 0);
    for n in 1..=3 {
        a.ring(1, 2);
        wait_for("the inmate's count", || {
            (word(a.memory(BAR_4), 0x1004) == n).then_some(())
        });
    }
    let mut text = [0; 5];
    a.memory(BAR_4).read_exact_at(&mut text, 0xc000).unwrap();
    assert_eq!(&text, GREETING);
    assert_eq!(setup.peer(1).doorbells.sent, 0);
}

#[test]
fn demo_inmate_rings_peer_0_on_vector_id_plus_1() {
    let inmate = InmateSpec {
        peer: 1,
        behaviour: Behaviour::Demo,
    };
    let setup = Setup::with_inmates(LinkOptions::default(), &[inmate]);
    let mut a = Guest::new(&setup, 0);
    a.wait_interrupt(2);
}

#[test]
fn inmates_have_no_socket_and_must_be_peers_of_the_link() {
    let start = |peers: &[u16]| {
        let directory = tempfile::TempDir::new().unwrap();
        let spec = LinkSpec::new(LinkOptions::default()).unwrap();
        let inmate = |&peer| InmateSpec {
            peer,
            behaviour: Behaviour::Quiet,
        };
        let inmates: Vec<_> = peers.iter().map(inmate).collect();
        let result = Model::start(spec, directory.path(), &inmates);
        result.map(|_| directory.path().join("peer1.sock").exists())
    };
    assert!(!start(&[1]).unwrap());
    assert!(matches!(
        start(&[2]),
        Err(StartError::InmatePeer { peer: 2, .. })
    ));
    assert!(matches!(start(&[1, 1]), Err(StartError::InmateTwice(1))));
}

#[test]
fn a_client_is_turned_away_where_a_soft_inmate_is_and_accepted_when_it_is_dead() {
    let setup = Setup::new(LinkOptions::default());
    let control = setup.model.control();
    let mut a = Guest::new(&setup, 0);
    for _ in 0..2 {
        control.run("inmate 1:quiet").unwrap();
        assert!(Client::new(&setup.socket(1)).is_err(), "turned away");
        // The inmate has not noticed.
        a.arrived(0);
        assert_eq!(word(a.memory(BAR_4), 4), 2);
        a.ring(1, 2);
        wait_for("the inmate's count", || {
            (word(a.memory(BAR_4), 0x1004) != 0).then_some(())
        });
        control.run("die 1").unwrap();
        assert_eq!(a.arrived(0), 1);
        a.memory(BAR_4).write_all_at(&[0; 4], 0x1004).unwrap();
        let mut b = Guest::new(&setup, 1);
        b.set(STATE, 7);
        assert_eq!((a.arrived(0), a.get(ID)), (1, 0));
        drop(b);
        a.wait_interrupt(0);
    }
}

#[test]
fn no_soft_inmate_comes_where_a_client_is_that_has_asked_for_nothing_yet() {
    let setup = Setup::new(LinkOptions::default());
    let silent = UnixStream::connect(setup.socket(1)).unwrap();
    let taken = || setup.model.link().lock().is_taken(1);
    wait_for("the connection", || taken().then_some(()));
    let refused = setup.model.control().run("inmate 1").unwrap_err();
    assert!(refused.to_string().contains("is there already"));
    assert_eq!(setup.peer(1).attaches, 0);
    drop(silent);
    wait_for("its end", || (!taken()).then_some(()));
    setup.model.control().run("inmate 1").unwrap();
}

fn start_in(directory: &Path) -> Result<Model, StartError> {
    let spec = LinkSpec::new(LinkOptions::default()).unwrap();
    Model::start(spec, directory, &[])
}

#[test]
fn stale_sockets_are_replaced_and_living_ones_are_refused() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("peer1.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a stale socket");
    let model = start_in(directory.path()).unwrap();
    let second = start_in(directory.path());
    assert!(matches!(second, Err(StartError::InUse { .. })));
    assert!(path.exists(), "the first still has its socket");
    let statistics = model.link().lock().snapshot(false);
    assert_eq!(statistics.peers[1].attaches, 0, "it was not disturbed");
    drop(model);
    assert!(!path.exists());
}

#[test]
fn sockets_are_not_put_where_something_else_is_or_where_they_do_not_fit() {
    let directory = tempfile::TempDir::new().unwrap();
    fs::write(directory.path().join("peer1.sock"), "precious").unwrap();
    let result = start_in(directory.path());
    assert!(matches!(result, Err(StartError::NotASocket { .. })));
    assert!(
        !directory.path().join("peer0.sock").exists(),
        "what was made before is removed"
    );
    let long = directory.path().join("x".repeat(100));
    assert!(matches!(
        start_in(&long),
        Err(StartError::PathTooLong { .. })
    ));
    let file = directory.path().join("peer1.sock").join("below");
    assert!(matches!(start_in(&file), Err(StartError::Directory { .. })));
}
