// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calls as a 32-bit program makes them: through the 32-bit entry of the kernel.

use super::{count_doorbells, Env, Test};
use crate::raw::{self, bytes_of, bytes_of_mut, Call32};
use ivshmem::uapi::{
    self, ivshmem_channel_status, ivshmem_connect, ivshmem_doorbell, ivshmem_event, ivshmem_events,
    ivshmem_info, ivshmem_state,
};
use ivshmem::ConnectOptions;
use rustix::io::Errno;

pub(super) const TESTS: &[Test] = &[
    Test::new("32-bit: info says the same", info),
    Test::new("32-bit: states are published and read", state),
    Test::new("32-bit: doorbells are rung and events fetched", events),
    Test::new(
        "32-bit: an unknown number is ENOTTY, a non-zero tail E2BIG",
        errors,
    ),
    Test::new("32-bit: pread and pwrite reach the region", region),
    Test::two_peers(
        "32-bit: a channel is opened, carries messages both ways, and tells its status",
        channel,
    ),
];

fn info(env: &Env) {
    let device = env.open();
    let mut through_32 = ivshmem_info::default();
    let mut through_64 = ivshmem_info::default();
    let call = Call32::new();
    let got = call.ioctl(
        &device,
        uapi::IVSHMEM_IOC_INFO,
        bytes_of_mut(&mut through_32),
    );
    assert_eq!(got, Ok(0));
    let got = raw::ioctl(
        &device,
        uapi::IVSHMEM_IOC_INFO,
        bytes_of_mut(&mut through_64),
    );
    assert_eq!(got, Ok(0));
    assert_eq!(bytes_of(&through_32), bytes_of(&through_64));
    assert_eq!(through_32.max_peers, env.expected().peers);
}

fn state(env: &Env) {
    let (device, call) = (env.open(), Call32::new());
    let mut state = ivshmem_state {
        peer: env.expected().peer,
        value: 0xfedc_ba98,
        ..Default::default()
    };
    let got = call.ioctl(
        &device,
        uapi::IVSHMEM_IOC_SET_STATE,
        bytes_of_mut(&mut state),
    );
    assert_eq!(got, Ok(0));
    assert_eq!(device.state(env.expected().peer), Ok(0xfedc_ba98));
    state.value = 0;
    let got = call.ioctl(
        &device,
        uapi::IVSHMEM_IOC_GET_STATE,
        bytes_of_mut(&mut state),
    );
    assert_eq!((got, state.value), (Ok(0), 0xfedc_ba98));
}

fn events(env: &Env) {
    let (device, witness, call) = (env.open(), env.open(), Call32::new());
    let mut doorbell = ivshmem_doorbell {
        peer: env.expected().peer,
        ..Default::default()
    };
    let got = call.ioctl(
        &device,
        uapi::IVSHMEM_IOC_DOORBELL,
        bytes_of_mut(&mut doorbell),
    );
    assert_eq!(got, Ok(0));
    assert_eq!(count_doorbells(&witness, 0, 1), 1);
    let mut events = ivshmem_events {
        records: call.address(),
        capacity: 4,
        record_size: size_of::<ivshmem_event>() as u32,
        ..Default::default()
    };
    let got = call.ioctl(&device, uapi::IVSHMEM_IOC_EVENTS, bytes_of_mut(&mut events));
    assert_eq!((got, events.count), (Ok(0), 1));
    let mut event = ivshmem_event::default();
    call.copy_out(bytes_of_mut(&mut event));
    assert_eq!(
        (event.kind, event.index, event.count),
        (uapi::IVSHMEM_EVENT_DOORBELL, 0, 1)
    );
    let got = call.ioctl(&device, uapi::IVSHMEM_IOC_EVENTS, bytes_of_mut(&mut events));
    assert_eq!(got, Err(Errno::AGAIN));
}

fn errors(env: &Env) {
    let (device, call) = (env.open(), Call32::new());
    let mut bytes = [0; 64];
    let unknown = uapi::IVSHMEM_IOC_DOORBELL + 0x30;
    assert_eq!(call.ioctl(&device, unknown, &mut bytes), Err(Errno::NOTTY));
    let larger = uapi::IVSHMEM_IOC_DOORBELL + (8 << 16);
    bytes[20] = 1;
    assert_eq!(call.ioctl(&device, larger, &mut bytes), Err(Errno::TOOBIG));
}

fn region(env: &Env) {
    let (device, call) = (env.open(), Call32::new());
    let section = device.info().output;
    call.copy_in(b"from 32 bits");
    assert_eq!(call.pwrite(&device, 12, section.offset as u32), Ok(12));
    call.copy_in(&[0; 12]);
    assert_eq!(call.pread(&device, 12, section.offset as u32), Ok(12));
    let mut bytes = [0; 12];
    call.copy_out(&mut bytes);
    assert_eq!(&bytes, b"from 32 bits");
}

fn channel(env: &Env) {
    let (device, other, call) = (env.open(), env.open_other(), Call32::new());
    let mut request = ivshmem_connect {
        peer: env.other_expected().peer,
        ..Default::default()
    };
    let near = call
        .opening_ioctl(
            &device,
            uapi::IVSHMEM_IOC_CONNECT,
            bytes_of_mut(&mut request),
        )
        .expect("connect");
    let far = other
        .connect(env.expected().peer, ConnectOptions::new())
        .expect("connect");
    far.send(b"from 64 bits").expect("send");
    assert_eq!(call.read(&near, 64), Ok(12));
    let mut bytes = [0; 12];
    call.copy_out(&mut bytes);
    assert_eq!(&bytes, b"from 64 bits");
    call.copy_in(b"from 32 bits");
    assert_eq!(call.write(&near, 12), Ok(12));
    assert_eq!(far.receive(&mut bytes), Ok(Some(12)));
    assert_eq!(&bytes, b"from 32 bits");
    let mut status = ivshmem_channel_status::default();
    let got = call.ioctl(
        &near,
        uapi::IVSHMEM_CHANNEL_IOC_STATUS,
        bytes_of_mut(&mut status),
    );
    assert_eq!((got, status.link), (Ok(0), uapi::IVSHMEM_CHANNEL_UP));
    assert_eq!((status.sent, status.confirmed), (1, 1));
    assert_eq!((status.received, status.acknowledged), (1, 1));
}
