// SPDX-License-Identifier: MIT OR Apache-2.0

//! One peer's device: configuration space, registers that concern only itself, MSI-X table, and
//! whether it can be interrupted.
//!
//! Knows neither memory nor other devices; what goes from one to the other is the business of
//! [`Link`](crate::link::Link), its only caller.

use crate::config_space::ConfigSpace;
use crate::config_space::ConfigWrite;
use crate::lines::IrqRequest;
use crate::lines::Lines;
use crate::lines::Raised;
use crate::lines::Sent;
use crate::link::Access;
use crate::link::Space;
use crate::register;
use crate::register::Register;
use crate::spec::LinkSpec;
use crate::statistics;
use crate::trouble::Trouble;
use ivshmem_protocol::state_table;
use std::ops::Range;
use std::sync::Arc;

/// Vector control dword of an MSI-X table entry: bit 0 masks it, and is set after reset.
const VECTOR_CONTROL: usize = 12;

/// One peer's device.
#[derive(Debug)]
pub(crate) struct Device {
    spec: Arc<LinkSpec>,
    id: u16,
    config: ConfigSpace,
    msix_table: Vec<u8>,
    lines: Lines,
    pub(crate) int_ctrl: bool,
    pub(crate) state: u32,
    pub(crate) present: bool,
    /// Somebody has its seat, there already or about to come.
    pub(crate) taken: bool,
    pub(crate) trouble: Trouble,
    pub(crate) statistics: statistics::Peer,
}

impl Device {
    pub(crate) fn new(spec: &Arc<LinkSpec>, id: u16) -> Self {
        let mut device = Self {
            spec: spec.clone(),
            id,
            config: ConfigSpace::new(spec),
            msix_table: Vec::new(),
            lines: Lines::new(spec.options().vectors),
            int_ctrl: false,
            state: 0,
            present: false,
            taken: false,
            trouble: Trouble::default(),
            statistics: statistics::Peer {
                id,
                ..Default::default()
            },
        };
        device.reset();
        device
    }

    /// All but state and statistics as after power-on. Signals of the client stay, as the client
    /// takes them back itself if it wants to.
    pub(crate) fn reset(&mut self) {
        self.int_ctrl = false;
        self.lines.reset();
        self.config = ConfigSpace::new(&self.spec);
        self.msix_table = vec![0; self.spec.msix_table_size() as usize];
        for entry in self.msix_table.chunks_mut(16) {
            entry[VECTOR_CONTROL] = 1;
        }
        let spec = self.spec.clone();
        for fault in spec.faults(self.id) {
            fault.malform_config(self.config.bytes_mut(), &spec);
        }
        self.malform_at_random();
        self.show_address();
    }

    /// What the client has set, or had set when it went.
    pub(crate) fn left_behind(&self) -> statistics::LeftBehind {
        if self.present && self.statistics.kind == statistics::PeerKind::Client {
            statistics::LeftBehind {
                interrupts: self.int_ctrl,
                state: self.state,
            }
        } else {
            self.statistics.left_behind
        }
    }

    /// The client has gone: reset, and its signals with it.
    pub(crate) fn detach(&mut self) {
        self.statistics.left_behind = self.left_behind();
        self.present = false;
        self.lines.clear();
        self.reset();
    }

    fn show_address(&mut self) {
        for fault in self.spec.faults(self.id) {
            let registers = self.config.registers_address();
            self.config
                .change_address(|address| fault.address(address, registers));
        }
        if let Some(hostile) = self.trouble.hostile() {
            self.config
                .change_address(|address| hostile.address(address));
        }
    }

    /// If the device is hostile, changes numbers of its configuration space.
    fn malform_at_random(&mut self) {
        if let Some(hostile) = self.trouble.hostile() {
            hostile.malform_config(self.config.bytes_mut());
        }
    }

    /// There is a device again where one was gone: a new one, to which firmware has given the addresses
    /// of the old one.
    pub(crate) fn come_back(&mut self) {
        self.trouble.is_gone = false;
        self.int_ctrl = false;
        self.lines.reset();
        self.config.forget_driver();
    }

    /// Answers nonsense from now on, as [`Trouble::become_hostile`] says.
    pub(crate) fn become_hostile(&mut self, seed: u64) {
        self.trouble.become_hostile(seed);
        self.malform_at_random();
        self.show_address();
    }

    /// Answers truly again, as if it always had.
    pub(crate) fn become_friendly(&mut self) {
        self.trouble.become_friendly();
        self.config.rebuild_capability(&self.spec);
        for fault in self.spec.faults(self.id) {
            fault.malform_config(self.config.bytes_mut(), &self.spec);
        }
        self.show_address();
    }

    /// Whether the device is gone, at an access that is to be counted then.
    fn is_gone(&mut self) -> bool {
        if self.trouble.is_gone {
            self.statistics.faults.gone_accesses += 1;
        }
        self.trouble.is_gone
    }

    pub(crate) fn config_read(&mut self, offset: u64, data: &mut [u8]) {
        self.statistics.config_reads += 1;
        if self.is_gone() {
            return data.fill(0xff);
        }
        self.config.read(offset, data);
    }

    pub(crate) fn config_write(&mut self, offset: u64, data: &[u8]) {
        self.statistics.config_writes += 1;
        if self.is_gone() {
            return;
        }
        if self.config.write(offset, data) == ConfigWrite::Forbidden {
            self.statistics.fatal.config_writes += 1;
        }
        if self.config.intx_disabled() {
            self.lines.forget_intx();
        }
        self.show_address();
    }

    pub(crate) fn irq_request(&mut self, request: IrqRequest) {
        if self.trouble.is_gone {
            self.lines.forget_intx();
        }
        match self.lines.request(request) {
            Sent::Nothing => {}
            Sent::Waiting => self.delivered(0),
            Sent::Again => self.statistics.interrupts.repeated += 1,
        }
    }

    /// The client accesses `bytes` of `space`, by which it may acknowledge an INTx interrupt: with a read of
    /// any register or of its own entry in the state table. So does [`Self::enable_interrupts`].
    pub(crate) fn touched(&mut self, space: Space, access: Access, bytes: &Range<u64>) {
        let own_state = state_table::entry_offset(self.id) as u64;
        match (space, access) {
            (Space::Config, _) => {}
            (Space::Memory, Access::Read) if bytes.contains(&own_state) => self.lines.handle(),
            (Space::Registers, Access::Read) => self.lines.acknowledge(),
            _ => self.lines.touch(),
        }
    }

    /// Interrupt Control: who disables interrupts, or enables them after a one-shot, has seen the last.
    pub(crate) fn enable_interrupts(&mut self, enable: bool) {
        match (std::mem::replace(&mut self.int_ctrl, enable), enable) {
            (_, false) => self.lines.silence(),
            (false, true) => self.lines.acknowledge(),
            (true, true) => {}
        }
    }

    fn delivered(&mut self, vector: u16) {
        let interrupts = &mut self.statistics.interrupts;
        interrupts.delivered += 1;
        interrupts.vector(vector).delivered += 1;
    }

    /// Decides which register an access to BAR 0 means, and counts it. [`None`] if the access has
    /// no effect and reads 0.
    fn register_at(&mut self, offset: u64, len: usize) -> Option<Register> {
        let fatal = &mut self.statistics.fatal;
        let register = Register::at(offset);
        if !self.config.memory_decoding() {
            fatal.decode_off += 1;
            return None;
        }
        if offset % 4 != 0 {
            fatal.unaligned_registers += 1;
        } else if register.is_none() {
            fatal.unbacked_registers += 1;
        } else if len != 4 {
            self.statistics.odd_width_accesses += 1;
        }
        register
    }

    /// What `register` reads.
    pub(crate) fn register_value(&mut self, register: Register) -> u32 {
        let options = self.spec.options();
        let value = match register {
            Register::Id => self.id.into(),
            Register::MaxPeers => options.max_peers.into(),
            Register::IntCtrl => self.int_ctrl.into(),
            Register::Doorbell => 0,
            Register::State => self.state,
        };
        let mut faults = self.spec.faults(self.id);
        let value = faults
            .find_map(|fault| fault.register(register, &self.spec))
            .unwrap_or(value);
        match self.trouble.hostile() {
            Some(hostile) => hostile.register(value),
            None => value,
        }
    }

    /// Interrupts this device as Jailhouse does: what cannot be delivered now is gone, and one-shot
    /// mode clears the interrupt enable whether or not it could be delivered.
    pub(crate) fn interrupt(&mut self, vector: u16) {
        let reason = self.try_interrupt(vector);
        let interrupts = &mut self.statistics.interrupts;
        let Err(reason) = reason else {
            return self.delivered(vector);
        };
        let dropped = &mut interrupts.dropped;
        match reason {
            NotDelivered::Merged => {
                interrupts.merged += 1;
                return;
            }
            NotDelivered::Disabled => dropped.disabled += 1,
            NotDelivered::MsixOff => dropped.msix_off += 1,
            NotDelivered::FunctionMasked => dropped.function_masked += 1,
            NotDelivered::BusMasterOff => dropped.bus_master_off += 1,
            NotDelivered::VectorOff => dropped.vector_off += 1,
            NotDelivered::IntxDisabled => dropped.intx_disabled += 1,
            NotDelivered::Gone => dropped.gone += 1,
            NotDelivered::Lost => dropped.lost += 1,
        }
        interrupts.vector(vector).dropped += 1;
    }

    fn try_interrupt(&mut self, vector: u16) -> Result<(), NotDelivered> {
        if self.trouble.is_gone {
            return Err(NotDelivered::Gone);
        }
        if !self.int_ctrl {
            return Err(NotDelivered::Disabled);
        }
        if self.config.one_shot() {
            self.int_ctrl = false;
        }
        if self.spec.options().vectors == 0 {
            if self.config.intx_disabled() {
                return Err(NotDelivered::IntxDisabled);
            }
            if self.trouble.loses_interrupt() {
                return Err(NotDelivered::Lost);
            }
            return match self.lines.raise_intx() {
                Raised::Now => Ok(()),
                Raised::Later => Err(NotDelivered::Merged),
                Raised::NotSetUp => Err(NotDelivered::VectorOff),
            };
        }
        if !self.config.msix_enabled() {
            return Err(NotDelivered::MsixOff);
        }
        if self.config.function_masked() {
            return Err(NotDelivered::FunctionMasked);
        }
        if !self.config.bus_master() {
            return Err(NotDelivered::BusMasterOff);
        }
        if self.trouble.loses_interrupt() {
            return Err(NotDelivered::Lost);
        }
        if !self.lines.raise_vector(vector) {
            return Err(NotDelivered::VectorOff);
        }
        Ok(())
    }

    /// Reads BAR 1. Clients that emulate the table themselves, as QEMU does, read only the pending
    /// bits here, which are always 0.
    pub(crate) fn msix_read(&mut self, offset: u64, data: &mut [u8]) {
        if self.is_gone() {
            return data.fill(0xff);
        }
        data.fill(self.nothing());
        if let Some(at) = self.msix_entry(offset, data.len(), false) {
            data.copy_from_slice(&self.msix_table[at..at + data.len()]);
        }
    }

    /// Writes BAR 1. What a client writes to the table is kept for it to read, and has no effect:
    /// it says with SET_IRQS which vectors it wants.
    pub(crate) fn msix_write(&mut self, offset: u64, data: &[u8]) {
        if self.is_gone() {
            return;
        }
        if let Some(at) = self.msix_entry(offset, data.len(), true) {
            self.msix_table[at..at + data.len()].copy_from_slice(data);
        }
    }

    /// Where in the table an access goes, if it may.
    fn msix_entry(&mut self, offset: u64, len: usize, is_write: bool) -> Option<usize> {
        let fatal = &mut self.statistics.fatal;
        if !self.config.memory_decoding() {
            fatal.decode_off += 1;
            return None;
        }
        let pending_bits = offset >= self.spec.pba_offset().into();
        let at = usize::try_from(offset).ok()?;
        let fits = at
            .checked_add(len)
            .is_some_and(|end| end <= self.msix_table.len());
        if offset % 4 != 0 || (pending_bits && is_write) || (!pending_bits && !fits) {
            fatal.msix_table += 1;
            return None;
        }
        (!pending_bits).then_some(at)
    }

    /// Counts an access to BAR 0 in `registers`.
    fn count(registers: &mut statistics::Registers, register: Option<Register>) {
        *match register {
            Some(Register::Id) => &mut registers.id,
            Some(Register::MaxPeers) => &mut registers.max_peers,
            Some(Register::IntCtrl) => &mut registers.int_ctrl,
            Some(Register::Doorbell) => &mut registers.doorbell,
            Some(Register::State) => &mut registers.state,
            None => &mut registers.other,
        } += 1;
    }

    /// What bytes read where there is nothing: while decoding is off, nobody answers.
    fn nothing(&self) -> u8 {
        if self.config.memory_decoding() {
            0
        } else {
            0xff
        }
    }

    /// Decides which register a write to BAR 0 means, and counts it. [`None`] if it has no effect.
    pub(crate) fn register_written(&mut self, offset: u64, len: usize) -> Option<Register> {
        if self.is_gone() {
            Self::count(&mut self.statistics.register_writes, Register::at(offset));
            return None;
        }
        let register = self.register_at(offset, len);
        Self::count(&mut self.statistics.register_writes, register);
        register
    }

    /// Reads BAR 0.
    pub(crate) fn register_read(&mut self, offset: u64, data: &mut [u8]) {
        if self.is_gone() {
            Self::count(&mut self.statistics.register_reads, Register::at(offset));
            return data.fill(0xff);
        }
        let register = self.register_at(offset, data.len());
        Self::count(&mut self.statistics.register_reads, register);
        match register {
            Some(register) => register::fill(self.register_value(register), data),
            None => data.fill(self.nothing()),
        }
    }
}

/// Why an interrupt did not reach the client.
enum NotDelivered {
    /// It will, with the one before it.
    Merged,
    Disabled,
    MsixOff,
    FunctionMasked,
    BusMasterOff,
    VectorOff,
    IntxDisabled,
    /// The device is gone, as a fault.
    Gone,
    /// Nothing was wrong but the fault.
    Lost,
}
