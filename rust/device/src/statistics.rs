// SPDX-License-Identifier: MIT OR Apache-2.0

//! The statistics that the model writes as JSON, and that the test harness reads back.
//!
//! Names of fields are stable: a field may be added, none changes its name or meaning within one
//! [`FORMAT`]. All numbers count from the start of the process.

mod channel;

pub use channel::Attack;
pub use channel::Channel;
pub use channel::Session;
pub use channel::SessionEnd;
pub use channel::Traffic;
pub use channel::RECENT;

use crate::spec::Protection;
use crate::spec::Shape;
use serde::Deserialize;
use serde::Serialize;

/// Version of the format.
pub const FORMAT: u32 = 1;

/// Everything about one link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// [`FORMAT`].
    pub format: u32,
    /// 1 for the first snapshot of the process, 2 for the next...
    pub sequence: u64,
    /// Whether this is the snapshot that the process wrote when it ended.
    pub last: bool,
    /// What the link is.
    pub link: LinkDescription,
    /// Accesses of all peers that stop a cell on Jailhouse, and damaged canaries. 0 in a good run.
    pub fatal_accesses: u64,
    /// What the canaries tell.
    pub canaries: Canaries,
    /// One entry per peer, in the order of their IDs.
    pub peers: Vec<Peer>,
}

/// What the link is, as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkDescription {
    /// Number of peers.
    pub max_peers: u16,
    /// Number of MSI-X vectors, 0 for INTx.
    pub vectors: u16,
    /// The protocol in the class code.
    pub protocol: u16,
    /// Size of the state table in bytes.
    pub state_size: u32,
    /// Size of the read/write section in bytes.
    pub rw_size: u64,
    /// Size of each output section in bytes.
    pub output_size: u64,
    /// Where guests find the memory.
    pub shape: Option<Shape>,
    /// What happens to forbidden stores.
    pub protection: Option<Protection>,
    /// What was to be wrong, as `NAME@PEER`.
    pub faults: Vec<String>,
}

/// Stores that nothing stopped, found afterwards by looking at the memory. Whose they were cannot
/// be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canaries {
    /// How often the memory was looked at as a whole.
    pub checks: u64,
    /// Words of the state table that were not what the model had put there. Each is counted and
    /// put right at once.
    pub state_table_words: u64,
    /// Words behind the end of the region that did not hold the guard's pattern any more.
    pub guard_words: u64,
    /// Words in the output sections of peers that never were there.
    pub unused_output_words: u64,
}

impl Canaries {
    /// All damage.
    #[must_use]
    pub fn damage(&self) -> u64 {
        self.state_table_words + self.guard_words + self.unused_output_words
    }
}

/// Who is behind a peer ID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerKind {
    /// Whoever connects to the socket.
    #[default]
    Client,
    /// A soft inmate.
    Inmate,
}

/// Everything about one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Peer ID.
    pub id: u16,
    /// Who it is.
    pub kind: PeerKind,
    /// How often a client came; a soft inmate comes once.
    pub attaches: u64,
    /// How often a client went or died.
    pub detaches: u64,
    /// What the client has set, or had when it went. After an orderly shutdown it is nothing.
    pub left_behind: LeftBehind,
    /// Device resets that the client asked for. QEMU does so twice in each boot.
    pub resets: u64,
    /// Reads of the configuration space.
    pub config_reads: u64,
    /// Writes to the configuration space, forbidden ones included.
    pub config_writes: u64,
    /// Reads of BAR 0.
    pub register_reads: Registers,
    /// Writes to BAR 0.
    pub register_writes: Registers,
    /// Accesses to a register, at its offset, that were not 32 bits wide. They work on Jailhouse.
    pub odd_width_accesses: u64,
    /// Loads from the shared memory that trapped.
    pub memory_reads: u64,
    /// Stores to the shared memory that trapped, dropped ones included.
    pub memory_writes: u64,
    /// Doorbells that this peer rang.
    pub doorbells: Doorbells,
    /// Times that the own state changed, by a write, a reset, or the end of the client.
    pub state_changes: u64,
    /// Interrupts for this peer.
    pub interrupts: Interrupts,
    /// Accesses that would have stopped this peer's cell on Jailhouse: the sum of `fatal`.
    pub fatal_accesses: u64,
    /// The same by kind.
    pub fatal: Fatal,
    /// What faults on demand did at this peer.
    #[serde(default)]
    pub faults: Faults,
    /// Channels of a soft inmate, one entry for each peer that it has one with.
    #[serde(default)]
    pub channels: Vec<Channel>,
    /// What a soft inmate did that attacks channels.
    #[serde(default)]
    pub attack: Attack,
}

/// What faults on demand did at a peer. Lost interrupts are in [`Dropped`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Accesses of the client to a device that was gone.
    pub gone_accesses: u64,
    /// Doorbells rung in this peer's name by a storm.
    pub storm_doorbells: u64,
    /// States published in this peer's name.
    pub garbage_states: u64,
    /// Words of the memory overwritten in this peer's name.
    pub scribbled_words: u64,
    /// Interrupts that came out of nothing.
    pub hostile_interrupts: u64,
    /// Accesses that were answered late.
    pub slow_accesses: u64,
}

/// What a peer's registers hold, or held when its client went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftBehind {
    /// Interrupt Control is 1.
    pub interrupts: bool,
    /// The state.
    pub state: u32,
}

/// Accesses per register.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    /// Register ID.
    pub id: u64,
    /// Register Maximum Peers.
    pub max_peers: u64,
    /// Register Interrupt Control.
    pub int_ctrl: u64,
    /// Register Doorbell.
    pub doorbell: u64,
    /// Register State.
    pub state: u64,
    /// Offsets without a register, unaligned offsets, and all while memory decoding was off.
    pub other: u64,
}

impl Registers {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.id + self.max_peers + self.int_ctrl + self.doorbell + self.state + self.other
    }
}

/// Writes to the doorbell register.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doorbells {
    /// For a peer ID and a vector of the link, whether or not it was then delivered.
    pub sent: u64,
    /// For a vector that the link does not have.
    pub bad_vector: u64,
    /// For a peer ID that the link does not have.
    pub bad_peer: u64,
}

/// Interrupts for one peer: doorbells and state changes of others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interrupts {
    /// Handed to the client: the sum of `vectors[..].delivered`.
    pub delivered: u64,
    /// Not handed to the client, and gone: the sum over all vectors.
    pub dropped: Dropped,
    /// How often an INTx waited for the end of the one before; such interrupts merge.
    pub merged: u64,
    /// How often an INTx was sent again that the client had ended and its guest not acknowledged;
    /// not in `delivered`.
    #[serde(default)]
    pub repeated: u64,
    /// By vector, up to the last one on which there was any.
    pub vectors: Vec<Vector>,
}

impl Interrupts {
    /// The entry of `vector`, made if there is none.
    pub(crate) fn vector(&mut self, vector: u16) -> &mut Vector {
        let vector = usize::from(vector);
        if self.vectors.len() <= vector {
            self.vectors.resize_with(vector + 1, Vector::default);
        }
        &mut self.vectors[vector]
    }
}

/// Interrupts of one vector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vector {
    /// Handed to the client.
    pub delivered: u64,
    /// Dropped, for whatever reason.
    pub dropped: u64,
}

/// Why interrupts were dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Interrupt Control was 0; for a doorbell, also if nobody is there.
    pub disabled: u64,
    /// MSI-X was not switched on.
    pub msix_off: u64,
    /// The MSI-X function mask was set.
    pub function_masked: u64,
    /// Bus master was off.
    pub bus_master_off: u64,
    /// The client had not set up the vector.
    pub vector_off: u64,
    /// INTx was disabled in the command register.
    pub intx_disabled: u64,
    /// It could have been delivered, and was lost by a fault on demand.
    #[serde(default)]
    pub lost: u64,
    /// The device was gone, as a fault on demand.
    #[serde(default)]
    pub gone: u64,
}

impl Dropped {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.disabled
            + self.msix_off
            + self.function_masked
            + self.bus_master_off
            + self.vector_off
            + self.intx_disabled
            + self.lost
            + self.gone
    }
}

/// Accesses that stop the cell on Jailhouse, or that a driver must not make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fatal {
    /// Stores to the state table.
    pub state_table_stores: u64,
    /// Stores to the output section of another peer.
    pub foreign_output_stores: u64,
    /// Loads and stores behind the end of the region.
    pub beyond_region: u64,
    /// Writes to the configuration space that Jailhouse forbids.
    pub config_writes: u64,
    /// Accesses to BAR 0 at offsets that are not divisible by 4.
    pub unaligned_registers: u64,
    /// Accesses to BAR 0 where there is no register.
    pub unbacked_registers: u64,
    /// Accesses to BAR 0 or BAR 1 while memory decoding was off, as far as they get here.
    pub decode_off: u64,
    /// Accesses to BAR 1 that are unaligned, behind the table's last vector, or stores to pending
    /// bits.
    pub msix_table: u64,
}

impl Fatal {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.state_table_stores
            + self.foreign_output_stores
            + self.beyond_region
            + self.config_writes
            + self.unaligned_registers
            + self.unbacked_registers
            + self.decode_off
            + self.msix_table
    }
}
