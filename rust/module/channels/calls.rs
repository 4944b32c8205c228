// SPDX-License-Identifier: GPL-2.0

//! The descriptor of a channel. See include/uapi/linux/ivshmem.h for what it does.

use super::{
    channel::{
        Channel,
        Outcome,
        State, //
    },
    show, //
};
use crate::{
    abi::{
        anon::{
            Patience,
            Stream, //
        },
        eventfd::EventFd,
        fops::poll,
        memory::SharedMemory,
        uapi::{
            self,
            ivshmem_channel_ack,
            ivshmem_channel_eventfd,
            ivshmem_channel_status,
            ivshmem_channel_wait,
            write_int,
            Argument, //
        },
        wait::{
            Deadline,
            PollTable, //
        },
    },
    ioctl::{
        call,
        deadline,
        zero, //
    },
    protocol::channel::session::{
        self,
        Ended, //
    },
};
use kernel::{
    fs::File,
    ioctl::_IOC_SIZE,
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    prelude::*,
    seq_file::SeqFile, //
};

const STATUS: u32 = call(uapi::IVSHMEM_CHANNEL_IOC_STATUS);
const ACK: u32 = call(uapi::IVSHMEM_CHANNEL_IOC_ACK);
const WAIT: u32 = call(uapi::IVSHMEM_CHANNEL_IOC_WAIT);
const EVENTFD: u32 = call(uapi::IVSHMEM_CHANNEL_IOC_EVENTFD);

/// `link` as user space and tracepoints have it.
pub(super) fn link_number(link: session::Link) -> u32 {
    match link {
        session::Link::Waiting => uapi::IVSHMEM_CHANNEL_WAITING,
        session::Link::Up => uapi::IVSHMEM_CHANNEL_UP,
        session::Link::Ended(Ended::Reset) => uapi::IVSHMEM_CHANNEL_RESET,
        session::Link::Ended(Ended::Broken) => uapi::IVSHMEM_CHANNEL_BROKEN,
        // Nobody asks how a channel is that has been closed.
        session::Link::Ended(Ended::Closed | Ended::Memory(_)) => uapi::IVSHMEM_CHANNEL_GONE,
    }
}

impl State {
    /// How it stands now.
    fn status(&mut self, memory: &SharedMemory) -> Outcome<ivshmem_channel_status> {
        let ring = self.look(memory);
        // What is confirmed is found out with it.
        let finished = self.session.peer_has_finished(memory).unwrap_or(false);
        let link = match self.session.link() {
            session::Link::Up if finished => uapi::IVSHMEM_CHANNEL_CLOSING,
            link => link_number(link),
        };
        Outcome::new(self.numbers(link), ring)
    }

    /// The status, without a look at the peer.
    pub(super) fn numbers(&self, link: u32) -> ivshmem_channel_status {
        let (sent, confirmed) = self.session.sent();
        let (received, acknowledged) = self.session.received();
        ivshmem_channel_status {
            link,
            max_message: self.session.largest_message(),
            sent,
            confirmed,
            received,
            acknowledged,
        }
    }

    /// Poll bits, of those that `table` asks for; what is not there is waited for.
    fn readiness(&mut self, memory: &SharedMemory, table: &PollTable) -> Outcome<u32> {
        const ENDED: u32 = poll::GONE | poll::IN | poll::OUT;
        let ring = self.look(memory);
        let bits = match self.session.link() {
            session::Link::Waiting => 0,
            session::Link::Up => {
                let data = table.asks_for(poll::IN) && self.await_data(memory).value;
                let room = table.asks_for(poll::OUT) && self.await_room(memory).value;
                let bit = |set: bool, bits: u32| if set { bits } else { 0 };
                let ready = bit(data, poll::IN) | bit(room, poll::OUT);
                match self.session.peer_has_finished(memory) {
                    // Writing says so, too.
                    Ok(finished) => ready | bit(finished, poll::RDHUP | poll::OUT),
                    Err(_) => ENDED,
                }
            }
            session::Link::Ended(_) => ENDED,
        };
        Outcome::new(bits, ring)
    }
}

impl Channel {
    /// How it stands; without the device, how it stood.
    pub(super) fn status(&self) -> ivshmem_channel_status {
        self.step(State::status)
            .unwrap_or_else(|_| self.state.lock().numbers(uapi::IVSHMEM_CHANNEL_GONE))
    }

    /// Size of the next message, 0 if there is none.
    fn next_size(&self) -> Result<u32> {
        self.step(|state, memory| Outcome::new(state.next_size(memory), false))?
    }

    fn wait_call(&self, file: &File, argument: Argument) -> Result {
        let mut request: ivshmem_channel_wait = argument.read()?;
        zero(request.flags | request.reserved)?;
        let result = self.wait_confirmed(request.number, deadline(request.deadline, file));
        request.confirmed = self.sent().1;
        argument.write(&request)?;
        result
    }

    fn ack_call(&self, argument: Argument) -> Result {
        let request: ivshmem_channel_ack = argument.read()?;
        zero(request.flags | request.reserved)?;
        self.acknowledge(request.number)
    }

    fn eventfd_call(&self, argument: Argument) -> Result {
        let request: ivshmem_channel_eventfd = argument.read()?;
        zero(request.flags)?;
        let eventfd = match request.fd {
            -1 => None,
            fd => Some(EventFd::get(fd)?),
        };
        self.set_eventfd(eventfd)
    }
}

impl Stream for Channel {
    const NAME: &'static CStr = c"[ivshmem-channel]";

    fn release(&self) {
        self.close();
    }

    fn read(&self, patience: Patience, to: &mut IovIterDest<'_>) -> Result<usize> {
        self.receive(patience, to)
    }

    fn write(&self, patience: Patience, from: &mut IovIterSource<'_>) -> Result<usize> {
        self.send(patience, from)
    }

    fn poll(&self, file: &File, table: &PollTable) -> u32 {
        // Register first: what happens after the look below wakes again.
        self.queue.register(file, table);
        self.step(|state, memory| state.readiness(memory, table))
            .unwrap_or(poll::GONE | poll::IN | poll::OUT)
    }

    fn ioctl(&self, file: &File, command: u32, argument: usize) -> Result<isize> {
        if command == uapi::FIONREAD {
            let size = self.next_size()?;
            write_int(argument, i32::try_from(size)?)?;
            return Ok(0);
        }
        let argument = Argument::new(argument, _IOC_SIZE(command));
        match call(command) {
            STATUS => argument.write(&self.status()),
            ACK => self.ack_call(argument),
            WAIT => self.wait_call(file, argument),
            EVENTFD => self.eventfd_call(argument),
            _ => Err(ENOTTY),
        }?;
        Ok(0)
    }

    fn sync(&self) -> Result {
        self.wait_confirmed(self.sent().0, Deadline::Never)
    }

    fn fdinfo(&self, to: &SeqFile) {
        show::fdinfo(self, to);
    }
}
