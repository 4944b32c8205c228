// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must be so after each batch: the devices work as on the first day.

use crate::system;
use ivshmem::{ConnectOptions, Deadline, Device, EventBuffer, EventKind, StateFlags};
use ivshmem_guest::plan::Plan;
use std::path::PathBuf;
use std::time::Duration;

type Failure = Box<dyn std::error::Error>;

/// How long a wait may take, before patience.
const SOON: Duration = Duration::from_secs(60);

/// What the devices were like before the first operation.
pub(crate) struct Healthy(Vec<ivshmem::Info>);

impl Healthy {
    /// Has a look at them.
    pub(crate) fn first(plan: &Plan) -> Result<Self, Failure> {
        let infos = nodes(plan)?
            .into_iter()
            .map(|node| Ok(*Device::open(node)?.info()));
        Ok(Self(infos.collect::<Result<_, Failure>>()?))
    }

    /// Whether they still are, with no file open: *info* is the same; nobody owns the state, and it can
    /// be published; the own section keeps what is written; an own doorbell arrives; a channel between them carries
    /// messages.
    pub(crate) fn check(&self, plan: &Plan) -> Result<(), Failure> {
        // A channel that was passed on keeps state and section until then.
        files_are_closed(plan)?;
        for (index, (node, info)) in nodes(plan)?.into_iter().zip(&self.0).enumerate() {
            let device = Device::open(&node)?;
            let named = |what: &str| -> Failure { format!("{}: {what}", node.display()).into() };
            if device.info() != info {
                return Err(named("its info has changed"));
            }
            // A state may have been kept, but nobody is there to own it.
            device.set_state(7, StateFlags::default())?;
            if device.state(info.id)? != 7 {
                return Err(named("its state is not what was published"));
            }
            round_trip(&device, index as u8).map_err(|error| named(&error.to_string()))?;
            ring(&device, plan.patient(SOON)).map_err(|error| named(&error.to_string()))?;
        }
        let nodes = nodes(plan)?;
        if let [first, second] = nodes.as_slice() {
            talk(
                [&Device::open(first)?, &Device::open(second)?],
                plan.patient(SOON),
            )?;
        }
        files_are_closed(plan)
    }
}

fn nodes(plan: &Plan) -> Result<Vec<PathBuf>, Failure> {
    let node =
        |bdf: String| system::node(&bdf).ok_or_else(|| format!("{bdf} has no device file").into());
    plan.devices
        .iter()
        .map(|device| node(device.bdf()))
        .collect()
}

/// Writes into the own output section and reads it back.
fn round_trip(device: &Device, mark: u8) -> Result<(), Failure> {
    let own = device.info().output;
    let written = [mark ^ 0x5a; 64];
    device.write_at(&written, own.offset + own.size - 64)?;
    let mut found = [0; 64];
    device.read_at(&mut found, own.offset + own.size - 64)?;
    if found != written {
        return Err("what was written to its output section is not there".into());
    }
    Ok(())
}

/// Rings the own bell on each vector.
fn ring(device: &Device, limit: Duration) -> Result<(), Failure> {
    let mut buffer = EventBuffer::new(16);
    for wanted in 0..device.info().vectors_enabled {
        device.ring(device.info().id, wanted)?;
        let heard = |event: ivshmem::Event| matches!(event.kind, EventKind::Doorbell { vector, .. } if vector == wanted);
        let deadline = Deadline::after(limit);
        while !device.events(&mut buffer, deadline)?.any(heard) {}
    }
    Ok(())
}

/// Sends a message through a channel between two peers, and back.
fn talk(devices: [&Device; 2], limit: Duration) -> Result<(), Failure> {
    let [first, second] = devices;
    let ids = devices.map(|device| device.info().id);
    let ends = [
        first.connect(ids[1], ConnectOptions::new())?,
        second.connect(ids[0], ConnectOptions::new())?,
    ];
    for (from, to) in [(0, 1), (1, 0)] {
        let message = [0x30 + from as u8; 100];
        if !ends[from].wait_writable(Deadline::after(limit))?.writable {
            return Err("a channel between the devices does not come up".into());
        }
        ends[from].send(&message)?;
        if !ends[to].wait_readable(Deadline::after(limit))?.readable {
            return Err("a message between the devices does not arrive".into());
        }
        if ends[to].receive_message()?.as_deref() != Some(&message[..]) {
            return Err("a message between the devices is another one".into());
        }
    }
    Ok(())
}

/// All workers have ended, so no file of theirs may be left.
fn files_are_closed(plan: &Plan) -> Result<(), Failure> {
    let count = |path: &PathBuf| -> Result<String, Failure> {
        Ok(std::fs::read_to_string(path)?.trim().into())
    };
    for node in nodes(plan)? {
        let name = node.file_name().unwrap_or_default().to_owned();
        let path = PathBuf::from("/sys/kernel/debug/ivshmem")
            .join(name)
            .join("files_open");
        let is_zero = || count(&path).is_ok_and(|text| text == "0");
        // The last of them may be closed a little after its process has ended.
        if !system::wait_until(plan.patient(SOON), is_zero) {
            return Err(format!("{} says {}", path.display(), count(&path)?).into());
        }
    }
    Ok(())
}
