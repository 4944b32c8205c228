// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random operations on `/dev/ivshmemN`, with a reproducible seed, and an opinion on each result.
//!
//! The guest program (`tests/guest`) runs [`worker::run`] in several processes, each with several
//! threads, and disturbs them meanwhile; the harness (`ivshmem-harness fuzz`) runs such guests.
//!
//! ```text
//! random ──> generate ──> Op ──> execute ──> result
//! (seed, thread, n)        │        (sys: all unsafe)  │
//!                          └──> oracle ──> what may come ──> equal?
//! ```
//!
//! * The n-th operation of a thread is a pure function of seed, thread and n: it names slots (of open
//!   files, of mapped memory), never what happens to be in them.
//! * Half of the batches have channels, in the others programs have the output sections and states that channels
//!   would take. What messages say is a function of the same three numbers (`message.rs`), and all processes share a
//!   ledger of what was sent: what arrives was sent, once, and in order.
//! * The oracle knows the header, not the driver: what an operation may return follows from the
//!   operation alone. Files of a slot are always of the same device and mode, and have always the
//!   same number, so that this can be exact although other threads open and close them.
//!
//! [`soak`] is the other thing that the guest does to its devices for hours: a process with everything
//! open that a device can go under.
#![deny(unsafe_code)]

mod execute;
mod facts;
mod generate;
mod kinds;
mod message;
mod op;
mod oracle;
mod random;
pub mod soak;
mod sys;
mod tally;
pub mod worker;

pub use facts::{Channels, Facts, Span};
pub use kinds::Kind;
pub use message::create_ledger;
pub use random::Random;
pub use tally::{Extra, Tally, ERRNOS};
