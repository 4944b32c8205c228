// SPDX-License-Identifier: GPL-2.0

//! Our end of a link: what all open files of a device share.
//!
//! A [`Link`] outlives its device. Jailhouse removes the device with files open, mappings live and
//! readers blocked, and that must wait for none of them. So whoever wants to touch the device
//! [enters](Link::enter) first and leaves soon; once [`Link::kill`] has returned nobody is inside
//! and nobody gets in any more. Nothing that waits for user space may happen inside: no copy from
//! or to it, no wait for events. The registers and the mapping of the memory belong to the binding
//! besides, and are gone with it even if files stay open for ever.

use crate::{
    abi::{
        irq::{
            self,
            Granted, //
        },
        memory::SharedMemory,
        pci::is_present,
        trace,
        vma::Mappings,
        wait::{
            self,
            Deadline, //
        },
    },
    channels::Channels,
    counters::Counters,
    events::Events,
    int_ctrl::IntCtrl,
    pingpong::PingPong,
    protocol::v2::{
        config::Protocol,
        layout::{
            Layout,
            Section, //
        },
        state_table::{
            entry_offset,
            StateTable, //
        }, //
    },
    registers::Registers,
    state::OwnState, //
};
use core::time::Duration;
use kernel::{
    device::Bound,
    devres::Devres,
    new_srcu,
    page::PAGE_SIZE,
    pci,
    prelude::*,
    revocable::RevocableGuard,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        srcu,
        SetOnce,
        Srcu, //
    },
};

/// What a device is, constant while it is bound. Every number has been checked.
pub(crate) struct Identity {
    /// The N of ivshmemN.
    pub(crate) number: u32,
    /// How the region is divided, and who we are.
    pub(crate) layout: Layout,
    /// What runs on the link.
    pub(crate) protocol: Protocol,
    /// Vectors that each peer has, at least 1: what a doorbell may be rung on.
    pub(crate) vectors: u16,
}

impl Identity {
    /// On how many vectors we want to be interrupted.
    pub(crate) fn vectors_wanted(&self) -> u16 {
        self.vectors.min(VECTORS_MAX)
    }
}

/// How often states are looked at where the device cannot interrupt.
const POLLING_PERIOD: Duration = Duration::from_millis(10);

/// How often they are looked at where it can, while a file is open: some interrupts may be lost, for
/// instance while Linux moves them to another CPU.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// How often it is seen whether the device is still there, while a file is open, in nanoseconds.
const LOOK_PERIOD: i64 = 1_000_000_000;

/// How long an interrupt to ourselves may take, in nanoseconds: much longer than it does, also on a
/// busy machine that emulates the device.
const SELF_TEST_LIMIT: i64 = 3_000_000_000;

/// Most vectors that we take: they are scarce on some machines, and no one device may have them all.
/// Jailhouse has at most 16.
const VECTORS_MAX: u16 = 64;

/// Our end of a link.
#[pin_data]
pub(crate) struct Link {
    /// What the device is.
    pub(crate) identity: Identity,
    registers: Registers,
    memory: Devres<SharedMemory>,
    page_aligned: bool,
    granted: SetOnce<Granted>,
    self_test: SetOnce<bool>,
    #[pin]
    int_ctrl: IntCtrl,
    gone: Atomic<bool>,
    /// The machine sleeps: what reads as states may be anything.
    asleep: Atomic<bool>,
    /// The device has gone without notice: nothing of it answers any more.
    vanished: Atomic<bool>,
    /// When [`Self::tick`] has last asked for a look at the device.
    looked: Atomic<i64>,
    #[pin]
    inside: Srcu,
    /// What is counted besides.
    pub(crate) counters: Counters,
    /// What has happened.
    #[pin]
    pub(crate) events: Events,
    /// Who owns our state.
    #[pin]
    pub(crate) state: OwnState,
    /// Messages.
    #[pin]
    pub(crate) channels: Channels,
    /// Round trips between interrupt handlers.
    #[pin]
    pub(crate) pingpong: PingPong,
    /// Where programs have mapped the region.
    #[pin]
    pub(crate) mappings: Mappings,
}

impl Link {
    /// A link whose device has been checked and does not interrupt yet.
    pub(crate) fn new<'a>(
        device: &'a pci::Device<Bound>,
        identity: Identity,
        registers: Registers,
        memory: SharedMemory,
    ) -> impl PinInit<Self, Error> + 'a {
        pin_init::pin_init_scope(move || {
            let events = Events::new(&identity, &memory)?;
            Ok(try_pin_init!(Self {
                identity,
                registers,
                page_aligned: memory.is_page_aligned(),
                memory: Devres::new(device.as_ref(), memory)?,
                granted: SetOnce::new(),
                self_test: SetOnce::new(),
                int_ctrl <- IntCtrl::new(crate::module_parameters::throttle.value()),
                gone: Atomic::new(false),
                asleep: Atomic::new(false),
                vanished: Atomic::new(false),
                looked: Atomic::new(0),
                inside <- new_srcu!("ivshmem_inside"),
                counters: Counters::new(),
                events <- events,
                state <- OwnState::new(),
                channels <- Channels::new(),
                pingpong <- PingPong::new(),
                mappings <- Mappings::new(),
            }))
        })
    }

    /// How the region is divided.
    pub(crate) fn layout(&self) -> &Layout {
        &self.identity.layout
    }

    /// Whether the region begins on a page, without which none of it can be mapped.
    pub(crate) fn is_page_aligned(&self) -> bool {
        self.page_aligned
    }

    /// Whether this kernel can map `section`.
    pub(crate) fn is_mappable(&self, section: &Section) -> bool {
        self.is_page_aligned() && section.is_mappable(PAGE_SIZE as u64)
    }

    /// Access to the device until the result is dropped.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is gone.
    pub(crate) fn enter(&self) -> Result<Inside<'_>> {
        let guard = self.inside.read_lock();
        if self.is_gone() {
            return Err(ENODEV);
        }
        Ok(Inside {
            link: self,
            _guard: guard,
        })
    }

    /// Whether the device is gone. It may go right after this says no: see [`Self::enter`].
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    /// How the device interrupts us, as soon as it does.
    pub(crate) fn granted(&self) -> Option<Granted> {
        self.granted.copy()
    }

    /// Whether a read of our own state is for the handler of interrupts: [`Events::is_acknowledged_by_reading`].
    pub(crate) fn is_acknowledged_by_reading(&self) -> bool {
        self.events.is_acknowledged_by_reading()
    }

    /// Interrupts `peer` on `vector` for a program.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is gone.
    pub(crate) fn ring(&self, peer: u16, vector: u16) -> Result {
        let inside = self.enter()?;
        // Before: the answer may be traced sooner than this goes on.
        trace::doorbell(self.identity.number, peer.into(), vector.into());
        inside.registers().ring(peer, vector)?;
        self.counters.doorbells_rung.increment();
        Ok(())
    }

    /// Interrupts `peer` on `vector` for a channel. From any context, only while the device is bound or by
    /// somebody who is inside.
    pub(crate) fn ring_bound(&self, peer: u16, vector: u16) {
        trace::doorbell(self.identity.number, peer.into(), vector.into());
        // Fails only where there is no register any more.
        let _ = self.registers.ring(peer, vector);
        self.counters.doorbells_rung.increment();
    }

    /// Waits until all that are inside now have left.
    pub(crate) fn wait_for_those_inside(&self) {
        self.inside.synchronize();
    }

    /// An interrupt on `vector`. In hard interrupt context, only while the device is bound.
    ///
    /// A result wants [`Self::tick`] called after that time.
    pub(crate) fn interrupt(&self, vector: u16) -> Option<Duration> {
        let begin = wait::now();
        trace::interrupt(self.identity.number, vector.into());
        // Handlers are freed before the device is unbound, so this needs not enter.
        let memory = self.memory.try_access()?;
        if self.is_acknowledged_by_reading() {
            // First: what is raised from now on wants a further interrupt. Also if the memory means nothing:
            // one may have been on its way when the machine went to sleep.
            self.events.acknowledge(&memory);
        }
        if self.is_gone() || !self.is_readable() {
            return None;
        }
        if let Some(peer) = self.pingpong.interrupt(vector) {
            self.ring_bound(peer, vector);
        }
        let changed = match vector {
            0 => self.events.scan(&memory),
            _ => 0,
        };
        if changed > 0 {
            self.channels.rescan(self, &memory);
        } else {
            self.channels.interrupt(self, vector, &memory);
        }
        let pause = self.int_ctrl.take(&self.registers, wait::now());
        // The last of what has to do with the device: see there.
        self.events.interrupted(vector, changed);
        self.int_ctrl.ended(wait::now() - begin);
        if pause.is_some() {
            trace::throttle(self.identity.number);
            self.counters.throttles.increment();
        }
        pause
    }

    /// When [`Self::tick`] is to be called next.
    pub(crate) fn next_tick(&self) -> Option<Duration> {
        if self.is_gone() {
            return None;
        }
        let pause = self.int_ctrl.pause();
        if pause.is_some() {
            pause
        } else if self.granted()?.mode == irq::Mode::Polling {
            Some(POLLING_PERIOD)
        } else {
            Some(WATCH_PERIOD)
        }
    }

    /// Whether what the shared memory reads as is the device's.
    fn is_readable(&self) -> bool {
        !self.asleep.load(Relaxed) && !self.vanished.load(Relaxed)
    }

    /// Ends a pause of the device, and looks for what no interrupt has told of. In hard interrupt
    /// context, only while the device is bound.
    ///
    /// True if [`Self::look`] is due.
    pub(crate) fn tick(&self) -> bool {
        let (Some(memory), Some(granted)) = (self.memory.try_access(), self.granted()) else {
            return false;
        };
        if self.is_gone() || !self.is_readable() {
            return false;
        }
        if self.events.is_void(&memory) {
            return self.counters.files_open() > 0;
        }
        if self.int_ctrl.resume(&self.registers) {
            self.lose(&memory);
        } else if granted.mode == irq::Mode::Polling {
            self.events.rescan(&memory);
            self.channels.rescan(self, &memory);
        } else if self.counters.files_open() > 0 {
            self.events.watch(&memory);
            self.channels.rescan(self, &memory);
        }
        let now = wait::now();
        let due = self.counters.files_open() > 0 && now - self.looked.load(Relaxed) >= LOOK_PERIOD;
        if due {
            self.looked.store(now, Relaxed);
        }
        due
    }

    /// The device could not interrupt for some time: looks for all that it has not told us.
    fn lose(&self, memory: &SharedMemory) {
        self.events.lose(memory);
        self.channels.rescan(self, memory);
    }

    /// Sees whether the device is still there. In process context, only while it is bound.
    ///
    /// No register is read for this: in config space every device answers, however it is used.
    pub(crate) fn look(&self, device: &pci::Device<Bound>) {
        if self.is_gone() || !self.is_readable() || !self.has_vanished(device) {
            return;
        }
        dev_err!(
            device,
            "ivshmem{}: the device has gone without notice: config space reads all-ones; open files \
             are dead. Unbind the driver, or remove and rescan the device\n",
            self.identity.number
        );
        self.kill();
    }

    /// Whether the device has gone without notice; if so, nothing of it is touched any more.
    fn has_vanished(&self, device: &pci::Device<Bound>) -> bool {
        if !is_present(device) {
            self.vanished.store(true, Relaxed);
        }
        self.vanished.load(Relaxed)
    }

    /// The driver is unbound: from here on nobody uses the device.
    pub(crate) fn unbind(&self, device: &pci::Device<Bound>) {
        // Nobody may have looked lately.
        self.has_vanished(device);
        self.kill();
        self.quiesce();
    }

    /// A CPU has gone offline, and its interrupts have been moved: some may have been lost.
    pub(crate) fn cpu_offline(&self) {
        if self.is_gone() || !self.is_readable() {
            return;
        }
        if let Some(memory) = self.memory.try_access() {
            self.lose(&memory);
        }
    }

    /// Whether an interrupt that we sent to ourselves has arrived, once that has been tried.
    pub(crate) fn self_test(&self) -> Option<bool> {
        self.self_test.copy()
    }

    /// Finds out whether interrupts arrive: rings ourselves. Waits for [`SELF_TEST_LIMIT`] at most.
    fn test_interrupts(&self) -> Result {
        self.enter()?.registers().ring(self.layout().id(), 0)?;
        let limit = wait::now() + SELF_TEST_LIMIT;
        // A signal leaves it undone.
        if let Some(passed) = self.events.wait_for(0, Deadline::At(limit)) {
            self.self_test.populate(passed);
        }
        Ok(())
    }

    /// Lets the device interrupt us on the vectors that we have got.
    pub(crate) fn start(&self, granted: Granted) -> Result {
        self.granted.populate(granted);
        self.events.start(granted);
        if granted.mode != irq::Mode::Polling {
            self.int_ctrl.open(&self.registers)?;
            self.test_interrupts()?;
        }
        // What changed before was dropped by the device.
        self.events.rescan(&*self.enter()?.memory()?);
        Ok(())
    }

    /// Shuts all files out, for good: waits for those inside, wakes those that wait, takes the
    /// pages out of mappings. Waits for no program.
    pub(crate) fn kill(&self) {
        let before = self.gone.xchg(true, Full);
        self.inside.synchronize();
        if !before {
            trace::gone(self.identity.number);
        }
        // First: who hears that the device is gone finds no mapping that works.
        self.mappings.zap();
        self.events.wake_all();
        self.channels.wake_all();
    }

    /// Leaves the device as a new owner wants to find it: silent, and absent for its peers. One that has vanished is
    /// left alone.
    ///
    /// No file may be inside.
    pub(crate) fn quiesce(&self) {
        if self.vanished.load(Relaxed) {
            return;
        }
        self.int_ctrl.close(&self.registers);
        if let Some(memory) = self.memory.try_access() {
            self.channels.retire(self, &memory);
        }
        // Fails only where there is no register any more.
        let _ = self.registers.set_state(0);
    }

    /// The machine goes to sleep: the device is silent, and for its peers nobody is here.
    pub(crate) fn sleep(&self) {
        let Ok(inside) = self.enter() else { return };
        // First, as long as handlers still look at the device: on QEMU that ends an interrupt.
        self.int_ctrl.sleep(inside.registers());
        self.asleep.store(true, Relaxed);
        self.state.sleep(self);
    }

    /// The machine is awake again. What has happened meanwhile nobody has told us.
    pub(crate) fn wake(&self) {
        let Ok(inside) = self.enter() else { return };
        self.asleep.store(false, Relaxed);
        self.int_ctrl.wake(inside.registers());
        self.state.wake(self);
        if let Ok(memory) = inside.memory() {
            self.lose(&memory);
        }
        self.counters.sleeps.increment();
    }
}

/// Access to a device that will not go before this is dropped.
pub(crate) struct Inside<'a> {
    link: &'a Link,
    _guard: srcu::Guard<'a>,
}

impl Inside<'_> {
    /// The link.
    pub(crate) fn link(&self) -> &Link {
        self.link
    }

    /// How the region is divided.
    pub(crate) fn layout(&self) -> &Layout {
        self.link.layout()
    }

    /// The registers.
    pub(crate) fn registers(&self) -> &Registers {
        &self.link.registers
    }

    /// The shared memory. Until the result is dropped the caller must not sleep.
    ///
    /// # Errors
    ///
    /// `ENODEV`, never while the device is bound.
    pub(crate) fn memory(&self) -> Result<RevocableGuard<'_, SharedMemory>> {
        self.link.memory.try_access().ok_or(ENODEV)
    }

    /// Copies out of the region from `offset` on, for a program. Our own state is left alone where a read of it is
    /// the handler's.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the range is not within the region, `ENODEV`.
    pub(crate) fn copy_out(&self, offset: usize, to: &mut [u8]) -> Result {
        let memory = self.memory()?;
        if !self.link.is_acknowledged_by_reading() {
            return memory.copy_out(offset, to);
        }
        let (own, end) = (entry_offset(self.layout().id()), offset + to.len());
        let state = self.link.events.own_state().to_le_bytes();
        let from = own.clamp(offset, end);
        let till = (own + state.len()).clamp(offset, end);
        memory.copy_out(offset, &mut to[..from - offset])?;
        if from < till {
            to[from - offset..till - offset].copy_from_slice(&state[from - own..till - own]);
        }
        memory.copy_out(till, &mut to[till - offset..])
    }

    /// State of `peer` now.
    ///
    /// # Errors
    ///
    /// `ENXIO` if the link has no such peer.
    pub(crate) fn state_of(&self, peer: u16) -> Result<u32> {
        if peer == self.layout().id() && self.link.is_acknowledged_by_reading() {
            return Ok(self.link.events.own_state());
        }
        StateTable::new(&*self.memory()?, self.link.layout())
            .ok()
            .and_then(|table| table.get(peer))
            .ok_or(ENXIO)
    }
}
