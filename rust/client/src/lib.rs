// SPDX-License-Identifier: MIT OR Apache-2.0
//! Talk to the other cells of a partitioning hypervisor through `/dev/ivshmemN`.
//!
//! An IVSHMEM v2 device links 2 or more *peers* (cells of Jailhouse or its relatives, or virtual
//! machines). All of them see one shared memory region, made of a *state table* (one word per
//! peer, 0 = absent), a *read/write section* and one *output section* per peer, and each can
//! interrupt each other by a *doorbell*. The kernel module `ivshmem` gives every such device a
//! file; this crate is the safe way to use it.
//!
//! [`Device`] is the open file and has a method for each thing that a program can do:
//!
//! | method | what it does |
//! | --- | --- |
//! | [`info`](Device::info) | who we are, how many peers and vectors, where the sections lie |
//! | [`state`](Device::state), [`set_state`](Device::set_state) | read a peer's state, publish our own |
//! | [`ring`](Device::ring) | interrupt a peer |
//! | [`events`](Device::events) | fetch doorbells and state changes, or wait for some |
//! | [`subscribe`](Device::subscribe), [`attach_eventfd`](Device::attach_eventfd) | choose events, be told of them by eventfd |
//! | [`read_at`](Device::read_at), [`write_at`](Device::write_at) | copy out of and into the region |
//! | [`map`](Device::map), [`map_mut`](Device::map_mut) | sections in this process's memory |
//! | [`connect`](Device::connect) | a [`Channel`] to a peer |
//!
//! `Device` is also [`AsFd`](std::os::fd::AsFd), so it fits into any event loop: readable means
//! doorbells to fetch, priority data means state changes, hang-up means that the device is gone.
//!
//! # Example
//!
//! Publish a state, then answer each doorbell of peer 1 with one:
//!
//! ```no_run
//! use ivshmem::{Deadline, Device, EventBuffer, EventKind, StateFlags};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), ivshmem::Error> {
//! let device = Device::open("/dev/ivshmem0")?;
//! let info = *device.info();
//! println!("peer {} of {}", info.id, info.max_peers);
//!
//! device.set_state(info.id + 1, StateFlags::default())?;
//!
//! let mut buffer = EventBuffer::new(16);
//! loop {
//!     let deadline = Deadline::after(Duration::from_secs(60));
//!     for event in device.events(&mut buffer, deadline)? {
//!         match event.kind {
//!             EventKind::Doorbell { vector, count } => {
//!                 let mut first = [0; 4];
//!                 device.read_at(&mut first, info.output_of(1)?.offset)?;
//!                 println!("vector {vector}: {count}, peer 1 says {}", u32::from_ne_bytes(first));
//!                 device.ring(1, 0)?;
//!             }
//!             EventKind::State { peer, new: 0, .. } => {
//!                 println!("peer {peer} has left");
//!                 return Ok(());
//!             }
//!             _ => {}
//!         }
//!     }
//! }
//! # }
//! ```
//!
//! # Channels
//!
//! A [`Channel`] carries messages instead of memory and doorbells: each arrives once, whole and in
//! order, and the sender learns that it did. Both ends [connect](Device::connect); a file transfer,
//! a request with an answer and a chat are complete programs in `samples/`.
//!
//! ```no_run
//! use ivshmem::{ConnectOptions, Deadline, Device, Error};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Error> {
//! let device = Device::open("/dev/ivshmem0")?;
//! let channel = device.connect(1, ConnectOptions::new())?;
//! channel.send(b"Is anybody there?")?; // waits for the peer, and for room
//! match channel.wait_confirmed(1, Deadline::after(Duration::from_secs(5))) {
//!     Ok(_) => println!("peer 1 has received it"),
//!     Err(Error::Reset { confirmed, .. }) => println!("peer 1 restarted: {confirmed} arrived"),
//!     Err(error) => return Err(error),
//! }
//! while let Some(answer) = channel.receive_message()? {
//!     println!("peer 1 says {}", String::from_utf8_lossy(&answer));
//! }
//! println!("peer 1 has closed the channel");
//! # Ok(())
//! # }
//! ```
//!
//! # What a peer can do to us
//!
//! Everything in the region may change at any moment, and a peer may be wrong or hostile. So the
//! crate never hands out a `&[u8]` into shared memory: copies are taken ([`Device::read_at`],
//! [`Mapping::read`]), and words are atomics. Check the copy, then use the copy.
#![deny(unsafe_code)]

mod channel;
mod device;
mod error;
mod event;
mod info;
mod mapping;
mod sys;
pub mod uapi;

pub use channel::{Channel, ChannelLink, ChannelStatus, ConnectOptions, Ready};
pub use device::{Device, OpenOptions, StateFlags};
pub use error::{Error, Result};
pub use event::{Deadline, Event, EventBuffer, EventKind, Events, Subject};
pub use info::{Info, InterruptMode, Section};
pub use mapping::{Mapping, MappingMut, Word};
pub use rustix::io::Errno;
