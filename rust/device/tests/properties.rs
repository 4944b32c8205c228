// SPDX-License-Identifier: MIT OR Apache-2.0

//! The link against a model of it that is as simple as can be, under random accesses of all peers:
//! every read, every interrupt and every byte of the memory has to agree.

mod support;

use ivshmem_device::lines::IrqRequest;
use ivshmem_device::lines::INTX_REPEATS;
use ivshmem_device::link::Space;
use ivshmem_device::spec::LinkOptions;
use ivshmem_device::spec::Protection;
use proptest::prelude::*;
use support::bench::*;

const PEERS: usize = 3;
const VECTORS: usize = 3;
const REGION: u64 = 0x1000 + 0x1000 + 3 * 0x1000;

/// What a peer, or the one who runs it, does.
#[derive(Clone, Debug)]
enum Action {
    /// What a driver does at probe, so that interrupts arrive.
    BringUp,
    Command(u16),
    MsixControl(u16),
    OneShot(bool),
    IntCtrl(u32),
    Ring(u16, u16),
    State(u32),
    Read(u64),
    SetVector(usize),
    ClearVectors,
    SetIntx,
    Unmask,
    Load(u64, usize),
    Store(u64, Vec<u8>),
    Reset,
    Detach,
    /// Anything at all, at any place; it must do no harm.
    Wild(Space, u64, usize),
}

fn action() -> impl Strategy<Value = Action> {
    use Action::*;
    let place = || 0..REGION + 0x20;
    let space = prop::sample::select(vec![Space::MsixTable, Space::Memory]);
    prop_oneof![
        4 => Just(BringUp),
        2 => prop::sample::select(vec![0x0006, 0x0002, 0x0406, 0xffff, 0]).prop_map(Command),
        2 => prop::sample::select(vec![0x8000, 0xc000, 0]).prop_map(MsixControl),
        4 => any::<bool>().prop_map(OneShot),
        4 => prop::sample::select(vec![1, 1, 0, 3, 2]).prop_map(IntCtrl),
        8 => (0..PEERS as u16 + 1, 0..VECTORS as u16 + 1).prop_map(|(p, v)| Ring(p, v)),
        4 => (0_u32..3).prop_map(State),
        6 => prop::sample::select(vec![ID, MAX_PEERS, INT_CTRL, INT_CTRL, DOORBELL, STATE, 0x14, 2])
            .prop_map(Read),
        2 => (0..VECTORS).prop_map(SetVector),
        1 => Just(ClearVectors),
        1 => Just(SetIntx),
        3 => Just(Unmask),
        4 => (place(), 0..9_usize).prop_map(|(at, len)| Load(at, len)),
        4 => (place(), prop::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(at, data)| Store(at, data)),
        1 => Just(Reset),
        1 => Just(Detach),
        1 => (space, any::<u64>(), 0..70_usize).prop_map(|(s, at, n)| Wild(s, at, n)),
    ]
}

/// One device of the simple model.
#[derive(Clone, Default)]
struct Simple {
    present: bool,
    command: u16,
    msix: u16,
    one_shot: bool,
    enabled: bool,
    state: u32,
    vectors: [bool; VECTORS],
    intx: bool,
    masked: bool,
    pending: bool,
    /// Whether the peer has touched the device since the last INTx, and if so acknowledged it.
    touched: Option<bool>,
    repeats: u32,
    has_handler: bool,
    /// Interrupts that have to have arrived.
    arrived: [u32; VECTORS],
}

impl Simple {
    fn interrupt(&mut self, with_msix: bool, vector: usize) {
        if !self.enabled {
            return;
        }
        self.enabled = !self.one_shot;
        if with_msix {
            let ready = self.msix == MSIX_ENABLE && self.command & COMMAND_MASTER != 0;
            if ready && self.vectors[vector] {
                self.arrived[vector] += 1;
            }
        } else if self.command & COMMAND_INTX_DISABLE == 0 && self.intx {
            self.intx();
        }
    }

    fn intx(&mut self) {
        if self.masked {
            self.pending = true;
        } else {
            self.masked = true;
            (self.touched, self.repeats) = (None, 0);
            self.arrived[0] += 1;
        }
    }

    fn touch(&mut self, acknowledges: bool) {
        self.touched = Some(acknowledges || self.touched == Some(true));
    }

    fn handle(&mut self) {
        self.has_handler |= self.touched != Some(true);
        self.touch(true);
    }

    fn unmask(&mut self) {
        self.masked = false;
        if std::mem::take(&mut self.pending) {
            if self.intx {
                self.intx();
            }
        } else if self.touched == Some(false)
            && (self.repeats < INTX_REPEATS || self.has_handler)
            && self.intx
        {
            let repeats = self.repeats + 1;
            self.intx();
            self.repeats = repeats;
        }
    }

    fn set_intx(&mut self) {
        (self.intx, self.masked, self.pending) = (true, false, false);
        self.touched = Some(true);
        self.has_handler = false;
    }

    fn reset(&mut self) {
        *self = Self {
            present: self.present,
            state: self.state,
            vectors: self.vectors,
            intx: self.intx,
            touched: Some(true),
            repeats: self.repeats,
            arrived: self.arrived,
            ..Self::default()
        };
    }
}

/// The simple model of a link.
struct Model {
    with_msix: bool,
    devices: [Simple; PEERS],
    memory: Vec<u8>,
}

impl Model {
    fn new(with_msix: bool) -> Self {
        Self {
            with_msix,
            devices: Default::default(),
            memory: vec![0; REGION as usize],
        }
    }

    fn may_write(peer: usize, at: u64) -> bool {
        let own = 0x2000 + 0x1000 * peer as u64;
        (0x1000..0x2000).contains(&at) || (own..own + 0x1000).contains(&at)
    }

    fn set_state(&mut self, peer: usize, state: u32) {
        self.memory[4 * peer..4 * peer + 4].copy_from_slice(&state.to_ne_bytes());
        if std::mem::replace(&mut self.devices[peer].state, state) != state {
            for (other, device) in self.devices.iter_mut().enumerate() {
                if other != peer && device.present {
                    device.interrupt(self.with_msix, 0);
                }
            }
        }
    }

    /// The value that a read has to give, if the action is one.
    fn act(&mut self, peer: usize, action: &Action) -> Option<Vec<u8>> {
        let vectors = if self.with_msix { VECTORS } else { 1 };
        let device = &mut self.devices[peer];
        match *action {
            Action::Read(_) => device.touch(true),
            Action::Load(at, len) if (at..at + len as u64).contains(&(4 * peer as u64)) => {
                device.handle();
            }
            Action::Load(..)
            | Action::IntCtrl(_)
            | Action::Ring(..)
            | Action::State(_)
            | Action::Store(..)
            | Action::Wild(..) => device.touch(false),
            _ => {}
        }
        let decoding = device.command & COMMAND_MEMORY != 0;
        match *action {
            Action::BringUp => {
                device.command = COMMAND_MEMORY | COMMAND_MASTER;
                device.msix = MSIX_ENABLE;
                device.enabled = true;
                if self.with_msix {
                    device.vectors = [true; VECTORS];
                } else {
                    device.set_intx();
                }
            }
            Action::Command(value) => {
                device.command = value & 0x0406;
                if value & COMMAND_INTX_DISABLE != 0 {
                    device.touch(true);
                    device.pending = false;
                }
            }
            Action::MsixControl(value) => device.msix = value & 0xc000,
            Action::OneShot(on) => device.one_shot = on,
            Action::IntCtrl(value) if decoding => {
                let was_enabled = std::mem::replace(&mut device.enabled, value & 1 != 0);
                device.touch(!device.enabled || !was_enabled);
                device.pending &= device.enabled;
            }
            Action::Ring(to, vector) if decoding => {
                let (to, vector) = (usize::from(to), usize::from(vector));
                if to < PEERS && vector < vectors {
                    self.devices[to].interrupt(self.with_msix, vector);
                }
            }
            Action::State(value) if decoding => self.set_state(peer, value),
            Action::Read(offset) => {
                let value = match offset {
                    _ if !decoding => u32::MAX,
                    ID => peer as u32,
                    MAX_PEERS => PEERS as u32,
                    INT_CTRL => device.enabled.into(),
                    STATE => device.state,
                    _ => 0,
                };
                return Some(value.to_le_bytes().into());
            }
            Action::SetVector(vector) if self.with_msix => device.vectors[vector] = true,
            Action::ClearVectors => device.vectors = Default::default(),
            Action::SetIntx => device.set_intx(),
            Action::Unmask => device.unmask(),
            Action::Load(at, len) => {
                let byte = |at: u64| *self.memory.get(at as usize).unwrap_or(&0xff);
                return Some((at..at + len as u64).map(byte).collect());
            }
            Action::Store(at, ref data) => {
                for (at, &byte) in (at..).zip(data) {
                    if !Self::may_write(peer, at) {
                        break;
                    }
                    self.memory[at as usize] = byte;
                }
            }
            Action::Reset => {
                device.reset();
                self.set_state(peer, 0);
            }
            Action::Detach => {
                device.reset();
                (device.present, device.intx) = (false, false);
                (device.touched, device.repeats) = (Some(true), 0);
                device.vectors = Default::default();
                self.set_state(peer, 0);
            }
            _ => {}
        }
        None
    }
}

/// The same to the real link.
fn act(bench: &mut Bench, peer: u16, action: &Action) -> Option<Vec<u8>> {
    let read = |bench: &mut Bench, space, offset, len| {
        let mut data = vec![0; len];
        bench.link.read(peer, space, offset, &mut data);
        Some(data)
    };
    match *action {
        Action::BringUp => bench.bring_up(peer),
        Action::Command(value) => bench.command(peer, value),
        Action::MsixControl(value) => bench.msix(peer, value),
        Action::OneShot(on) => bench.one_shot(peer, on),
        Action::IntCtrl(value) => bench.set(peer, INT_CTRL, value),
        Action::Ring(to, vector) => bench.ring(peer, to, vector),
        Action::State(value) => bench.set(peer, STATE, value),
        Action::Read(offset) => return read(bench, Space::Registers, offset, 4),
        Action::SetVector(vector) => bench.set_line(peer, vector as u16),
        Action::ClearVectors => bench.link.irq_request(peer, IrqRequest::ClearVectors),
        Action::SetIntx => bench.set_intx(peer),
        Action::Unmask => bench.link.irq_request(peer, IrqRequest::UnmaskIntx),
        Action::Load(at, len) => return read(bench, Space::Memory, at, len),
        Action::Store(at, ref data) => bench.link.write(peer, Space::Memory, at, data),
        Action::Reset => bench.link.reset(peer),
        Action::Detach => bench.link.detach(peer),
        Action::Wild(space, at, len) => {
            let at = at | (1 << 40);
            bench.link.write(peer, space, at, &vec![0xff; len]);
            read(bench, space, at, len);
        }
    }
    None
}

fn options(vectors: u16) -> LinkOptions {
    LinkOptions {
        max_peers: PEERS as u16,
        vectors,
        rw_size: 0x1000,
        output_size: 0x1000,
        protection: Protection::Trap,
        ..LinkOptions::default()
    }
}

fn check(vectors: u16, steps: Vec<(usize, Action)>) -> Result<(), TestCaseError> {
    let mut bench = Bench::empty(options(vectors));
    let mut model = Model::new(vectors != 0);
    for peer in 0..PEERS {
        let kind = ivshmem_device::statistics::PeerKind::Client;
        bench.link.attach(peer as u16, kind);
        model.devices[peer].present = true;
    }
    for (peer, action) in steps {
        let expected = model.act(peer, &action);
        let actual = act(&mut bench, peer as u16, &action);
        prop_assert_eq!(&actual, &expected, "peer {} {:?}", peer, action);
        for (id, device) in (0_u16..).zip(&mut model.devices) {
            for (vector, expected) in device.arrived.iter_mut().enumerate() {
                if vector < usize::from(vectors.max(1)) {
                    let actual = bench.arrived(id, vector as u16);
                    let expected = std::mem::take(expected);
                    prop_assert_eq!(actual, expected, "peer {} vector {}", id, vector);
                }
            }
        }
    }
    let mut memory = vec![0; REGION as usize];
    bench
        .link
        .region()
        .read(0, &mut memory)
        .expect("the region");
    prop_assert!(memory == model.memory, "the memory differs");

    // What was rung or announced is delivered, dropped or merged, and nothing else is.
    let statistics = bench.statistics();
    prop_assert_eq!(statistics.canaries.damage(), 0);
    for peer in &statistics.peers {
        let interrupts = &peer.interrupts;
        let by_vector: u64 = interrupts.vectors.iter().map(|v| v.delivered).sum();
        let dropped: u64 = interrupts.vectors.iter().map(|v| v.dropped).sum();
        prop_assert_eq!(by_vector, interrupts.delivered);
        prop_assert_eq!(dropped, interrupts.dropped.total());
    }
    Ok(())
}

fn steps() -> impl Strategy<Value = Vec<(usize, Action)>> {
    prop::collection::vec((0..PEERS, action()), 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn link_with_msix_does_what_the_simple_model_does(steps in steps()) {
        check(VECTORS as u16, steps)?;
    }

    #[test]
    fn link_with_intx_does_what_the_simple_model_does(steps in steps()) {
        check(0, steps)?;
    }

    /// Whatever is written to the configuration space, what must not change does not, and the
    /// capabilities can be walked.
    #[test]
    fn configuration_space_keeps_its_read_only_bytes(
        writes in prop::collection::vec((any::<u64>(), prop::collection::vec(any::<u8>(), 0..9)), 0..60)
    ) {
        let mut bench = Bench::empty(options(4));
        let before = bench.config(0);
        for (offset, data) in writes {
            bench.link.write(0, Space::Config, offset % 0x108, &data);
        }
        let after = bench.config(0);
        let may_change = |at| matches!(at, 0x04..0x06 | 0x10..0x28 | 0x43 | 0x58..0x60 | 0x63);
        for at in (0..256).filter(|&at| !may_change(at)) {
            prop_assert_eq!(after[at], before[at], "byte {:#04x}", at);
        }
        prop_assert_eq!(after[0x04] & !0x06, 0);
        prop_assert_eq!(after[0x05] & !0x04, 0);
        prop_assert_eq!(after[0x43] & !0x01, 0);
        prop_assert_eq!(after[0x63] & !0xc0, 0);
        prop_assert_eq!(after[0x20] & 0x0f, 0x0c);
        let capability = ivshmem_protocol::capability::VendorCapability::read(&after);
        prop_assert!(capability.is_ok());
    }
}
