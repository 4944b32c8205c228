// SPDX-License-Identifier: MIT OR Apache-2.0

//! The bare-metal inmate's channels against the soft inmates': two implementations of
//! Documentation/channel-protocol.md that share no code, on one link, each on a thread of its own.

mod support;

use ivshmem_device::control::Control;
use ivshmem_device::lines::IrqRequest;
use ivshmem_device::lines::Signal;
use ivshmem_device::link::Link;
use ivshmem_device::link::SharedLink;
use ivshmem_device::link::Space;
use ivshmem_device::region::Region;
use ivshmem_device::spec::LinkOptions;
use ivshmem_device::spec::LinkSpec;
use ivshmem_device::statistics::Channel;
use ivshmem_device::statistics::PeerKind;
use ivshmem_inmate::capability::VendorCapability;
use ivshmem_inmate::channel_echo::ChannelEcho;
use ivshmem_inmate::error::Error;
use ivshmem_inmate::layout::Layout;
use ivshmem_inmate::link::Event;
use ivshmem_inmate::link::Events;
use ivshmem_inmate::options::Options;
use ivshmem_protocol::memory::LoadOrder;
use ivshmem_protocol::memory::Memory;
use ivshmem_protocol::memory::StoreOrder;
use std::sync::atomic::fence;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::Arc;
use std::thread;
use support::bench::*;
use support::wait_for;

/// What the bare-metal inmate's hardware does, on the model.
struct Hardware {
    link: SharedLink,
    region: Arc<Region>,
    layout: Layout,
    vectors: u16,
}

/// The end of an interrupt line.
struct Line(u32, mpsc::Sender<Event>);

impl Signal for Line {
    fn signal(&self) {
        let (vector, count, new) = (self.0, 1, 1);
        // It fails when the inmate has ended.
        let _ = self.1.send(Event::Interrupt { vector, count, new });
    }
}

/// No timer: a wake-up that is missing is missed.
struct Interrupts(mpsc::Receiver<Event>);

impl Events for Interrupts {
    fn wait(&mut self) -> Event {
        self.0.recv().unwrap_or(Event::Timeout)
    }
}

impl Hardware {
    /// Peer `id`, with its device brought up.
    fn new(link: &SharedLink, id: u16) -> (Self, Interrupts, mpsc::Sender<Event>) {
        let mut guard = link.lock();
        let options = guard.spec().options().clone();
        let vendor = VendorCapability {
            offset: 0x40,
            state_table_size: options.state_size,
            rw_section_size: options.rw_size,
            output_section_size: options.output_size,
            base_address: None,
        };
        let layout = Layout::new(&vendor, id.into(), options.max_peers.into());
        let (sender, receiver) = mpsc::channel();
        guard.attach(id, PeerKind::Client);
        let command = COMMAND_MEMORY | COMMAND_MASTER;
        guard.write(id, Space::Config, COMMAND, &command.to_le_bytes());
        guard.write(id, Space::Config, MSIX_CONTROL, &MSIX_ENABLE.to_le_bytes());
        let line =
            |vector: u16| Some(Box::new(Line(vector.into(), sender.clone())) as Box<dyn Signal>);
        let signals = (0..options.vectors).map(line).collect();
        guard.irq_request(id, IrqRequest::SetVectors { first: 0, signals });
        let hardware = Self {
            link: link.clone(),
            region: guard.region().clone(),
            layout: layout.expect("a layout"),
            vectors: options.vectors,
        };
        (hardware, Interrupts(receiver), sender)
    }

    fn id(&self) -> u16 {
        self.layout.id() as u16
    }

    fn write(&self, register: u64, value: u32) {
        let mut link = self.link.lock();
        link.write(self.id(), Space::Registers, register, &value.to_le_bytes());
    }

    fn output_at(&self, peer: u32, offset: u64) -> usize {
        let sections = self.link.lock().spec().layout(0);
        let section = sections.output_of(peer as u16).expect("a section");
        (section.offset + offset) as usize
    }
}

impl ivshmem_inmate::link::Link for Hardware {
    fn layout(&self) -> &Layout {
        &self.layout
    }
    fn present(&self) -> bool {
        true
    }
    fn vectors(&self) -> u32 {
        self.vectors.into()
    }
    fn enable_interrupts(&mut self, enable: bool) {
        self.write(INT_CTRL, enable.into());
    }
    fn set_state(&mut self, state: u32) {
        self.write(STATE, state);
    }
    fn state(&self, peer: u32) -> u32 {
        let word = self.region.load(4 * peer as usize, LoadOrder::Acquire);
        word.expect("an entry of the state table")
    }
    fn rw(&self, _: u32) -> Option<u32> {
        None
    }
    fn set_rw(&mut self, _: u32, _: u32) {}
    fn output(&self, peer: u32) -> Option<u32> {
        Some(self.output_word(peer, 0))
    }
    fn write_output(&mut self, _: &[u8]) {}
    fn output_word(&self, peer: u32, offset: u64) -> u32 {
        let at = self.output_at(peer, offset);
        self.region.load(at, LoadOrder::Acquire).expect("a word")
    }
    fn set_output_word(&mut self, offset: u64, value: u32) {
        let at = self.output_at(self.layout.id(), offset);
        let stored = self.region.store(at, value, StoreOrder::Release);
        stored.expect("a word");
    }
    fn barrier(&self) {
        fence(Ordering::SeqCst);
    }
    fn ring(&mut self, target: u32, vector: u32) {
        self.write(DOORBELL, (target << 16) | vector);
    }
}

/// A link with the bare-metal inmate's echo as peer 1, which talks to peer 0.
struct Scene {
    link: SharedLink,
    control: Control,
    end: mpsc::Sender<Event>,
    inmate: thread::JoinHandle<(Result<u32, Error>, String)>,
}

impl Scene {
    fn new(options: LinkOptions, line: &str, inmates: &[&str]) -> Self {
        let spec = LinkSpec::new(options).expect("good options");
        let link = SharedLink::new(Link::new(spec).expect("memory"));
        let (mut hardware, mut events, end) = Hardware::new(&link, 1);
        let line = line.to_owned();
        let inmate = thread::spawn(move || {
            let options = Options::parse(&line).expect("good options");
            let mut console = String::new();
            let result = ChannelEcho::new(&mut hardware, &mut console, &options)
                .and_then(|echo| echo.run(&mut events));
            (result, console)
        });
        let scene = Self {
            control: Control::new(link.clone()),
            link,
            end,
            inmate,
        };
        inmates
            .iter()
            .for_each(|it| scene.run(&format!("inmate {it}")));
        scene
    }

    fn run(&self, command: &str) {
        if let Err(error) = self.control.run(command) {
            panic!("{command}: {error}");
        }
    }

    fn channel(&self) -> Channel {
        let peer = self.link.lock().snapshot(false).peers[0].clone();
        let channel = peer.channels.into_iter().find(|it| it.peer == 1);
        channel.unwrap_or_default()
    }

    fn wait(&self, what: &str, wanted: impl Fn(&Channel) -> bool) -> Channel {
        wait_for(what, || {
            let channel = self.channel();
            assert_eq!((channel.total.wrong(), channel.broken), (0, 0));
            wanted(&channel).then_some(channel)
        })
    }

    /// Ends the inmate; says how it ended and what it printed.
    fn end(self) -> (Result<u32, Error>, String) {
        self.control.stop();
        self.end.send(Event::Timeout).expect("it lives");
        self.inmate.join().expect("it does not panic")
    }
}

#[test]
fn the_other_implementation_sends_all_messages_back() {
    for (vectors, output_size, max) in [(4, 0x2000, 8000), (1, 0x1000, 64), (2, 0x1_0000, 30_000)] {
        let options = LinkOptions {
            vectors,
            output_size,
            ..LinkOptions::default()
        };
        let source = format!("0:channel-source,count=3000,echoed,seed=21,max={max}");
        let scene = Scene::new(options, "mode=channel-echo rounds=1", &[&source]);
        let channel = scene.wait("all messages", |it| it.closed == 1);
        let total = channel.total;
        assert_eq!(
            (total.sent, total.confirmed, total.received),
            (3000, 3000, 3000)
        );
        assert_eq!(total.sent_bytes, total.received_bytes);
        let (rounds, console) = scene.inmate.join().expect("it does not panic");
        assert_eq!(rounds, Ok(1));
        assert!(
            console.contains(
                "session 1 with peer 0 is over: the peer has closed it; echoed 3000, dropped 0"
            ),
            "{console}"
        );
    }
}

#[test]
fn the_other_implementation_survives_restarts_at_any_store() {
    let mut rng = fastrand::Rng::with_seed(5);
    let scene = Scene::new(
        LinkOptions::default(),
        "mode=channel-echo timeout=1",
        &["0:channel-source,seed=8,max=700"],
    );
    let goes_on = |it: &Channel| {
        let now = it.recent.last();
        now.is_some_and(|it| it.end.is_none() && it.traffic.received > 10)
    };
    for round in 1..=100 {
        scene.wait("messages", goes_on);
        match rng.u8(..4) {
            0 => scene.run("restart 0"),
            1 => scene.run("reconnect 0"),
            _ => scene.run(&format!("restart 0 {}", rng.u32(..200))),
        }
        scene.wait("the restart", |it| it.crashed + it.closed == round);
    }
    let last = scene.wait("messages", goes_on);
    assert_eq!(last.resets, 0, "nobody else has restarted");
    let (result, console) = scene.end();
    assert_eq!(result, Err(Error::Timeout { seconds: 1 }));
    let over = console.matches("is over").count();
    assert!(over >= 100, "{over} sessions: {console}");
    assert!(!console.contains("broken"), "{console}");
}

#[test]
fn the_other_implementation_survives_the_attacker() {
    for seed in 0..4 {
        let scene = Scene::new(
            LinkOptions::default(),
            "mode=channel-echo timeout=1",
            &[&format!("0:channel-attacker,seed={seed}")],
        );
        wait_for("the attack", || {
            let attack = scene.link.lock().snapshot(false).peers[0].attack.clone();
            (attack.steps > 20_000 && attack.links > 5).then_some(())
        });
        scene.run("die 0");
        scene.run("inmate 0:channel-source,count=100,echoed");
        scene.wait("an honest successor", |it| it.closed == 1);
        let (result, console) = scene.end();
        assert_eq!(result, Err(Error::Timeout { seconds: 1 }));
        assert!(
            console.contains("the peer has broken the protocol"),
            "{console}"
        );
    }
}
