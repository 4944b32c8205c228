// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note
// Generated from include/uapi/linux/ivshmem.h; see uapi/mod.rs. Do not edit.

pub const IVSHMEM_ABI_VERSION: u32 = 1;
pub const IVSHMEM_IOC_MAGIC: u32 = 233;
pub const IVSHMEM_DEADLINE_NOW: u32 = 0;
pub const IVSHMEM_SECTION_READ: u32 = 1;
pub const IVSHMEM_SECTION_WRITE: u32 = 2;
pub const IVSHMEM_SECTION_MMAP: u32 = 4;
pub const IVSHMEM_STATE_TAKE_OVER: u32 = 1;
pub const IVSHMEM_STATE_KEEP: u32 = 2;
pub const IVSHMEM_EVENT_MAY_HAVE_LOST: u32 = 1;
pub const IVSHMEM_INDEX_ALL: u32 = 4294967295;
pub const IVSHMEM_SUBSCRIBE_OFF: u32 = 1;
pub const IVSHMEM_CONNECT_EXPLICIT_ACK: u32 = 1;
pub const IVSHMEM_CONNECT_NONBLOCK: u32 = 2;
pub const IVSHMEM_IOC_INFO: u32 = 2156456192;
pub const IVSHMEM_IOC_GET_STATE: u32 = 3222333697;
pub const IVSHMEM_IOC_SET_STATE: u32 = 1074850050;
pub const IVSHMEM_IOC_DOORBELL: u32 = 1074850051;
pub const IVSHMEM_IOC_EVENTS: u32 = 3223382276;
pub const IVSHMEM_IOC_SUBSCRIBE: u32 = 1074850053;
pub const IVSHMEM_IOC_EVENTFD: u32 = 1074850054;
pub const IVSHMEM_IOC_CONNECT: u32 = 1074850055;
pub const IVSHMEM_CHANNEL_IOC_STATUS: u32 = 2150164800;
pub const IVSHMEM_CHANNEL_IOC_ACK: u32 = 1074850113;
pub const IVSHMEM_CHANNEL_IOC_WAIT: u32 = 3223382338;
pub const IVSHMEM_CHANNEL_IOC_EVENTFD: u32 = 1074325827;
pub type __s32 = ::core::ffi::c_int;
pub type __u32 = ::core::ffi::c_uint;
pub type __u64 = ::core::ffi::c_ulonglong;
pub const IVSHMEM_INTERRUPT_MSIX: ivshmem_interrupt_mode = 1;
pub const IVSHMEM_INTERRUPT_INTX: ivshmem_interrupt_mode = 2;
pub const IVSHMEM_INTERRUPT_POLLING: ivshmem_interrupt_mode = 3;
pub type ivshmem_interrupt_mode = ::core::ffi::c_uint;
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct ivshmem_section {
    pub offset: __u64,
    pub size: __u64,
    pub flags: __u32,
    pub reserved: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ivshmem_section"][::core::mem::size_of::<ivshmem_section>() - 24usize];
    [
        "Alignment of ivshmem_section",
    ][::core::mem::align_of::<ivshmem_section>() - 8usize];
    [
        "Offset of field: ivshmem_section::offset",
    ][::core::mem::offset_of!(ivshmem_section, offset) - 0usize];
    [
        "Offset of field: ivshmem_section::size",
    ][::core::mem::offset_of!(ivshmem_section, size) - 8usize];
    [
        "Offset of field: ivshmem_section::flags",
    ][::core::mem::offset_of!(ivshmem_section, flags) - 16usize];
    [
        "Offset of field: ivshmem_section::reserved",
    ][::core::mem::offset_of!(ivshmem_section, reserved) - 20usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct ivshmem_info {
    pub abi_version: __u32,
    pub id: __u32,
    pub max_peers: __u32,
    pub vectors: __u32,
    pub vectors_enabled: __u32,
    pub interrupt_mode: __u32,
    pub protocol: __u32,
    pub reserved: __u32,
    pub region_size: __u64,
    pub state_table: ivshmem_section,
    pub rw: ivshmem_section,
    pub outputs: ivshmem_section,
    pub output: ivshmem_section,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ivshmem_info"][::core::mem::size_of::<ivshmem_info>() - 136usize];
    ["Alignment of ivshmem_info"][::core::mem::align_of::<ivshmem_info>() - 8usize];
    [
        "Offset of field: ivshmem_info::abi_version",
    ][::core::mem::offset_of!(ivshmem_info, abi_version) - 0usize];
    [
        "Offset of field: ivshmem_info::id",
    ][::core::mem::offset_of!(ivshmem_info, id) - 4usize];
    [
        "Offset of field: ivshmem_info::max_peers",
    ][::core::mem::offset_of!(ivshmem_info, max_peers) - 8usize];
    [
        "Offset of field: ivshmem_info::vectors",
    ][::core::mem::offset_of!(ivshmem_info, vectors) - 12usize];
    [
        "Offset of field: ivshmem_info::vectors_enabled",
    ][::core::mem::offset_of!(ivshmem_info, vectors_enabled) - 16usize];
    [
        "Offset of field: ivshmem_info::interrupt_mode",
    ][::core::mem::offset_of!(ivshmem_info, interrupt_mode) - 20usize];
    [
        "Offset of field: ivshmem_info::protocol",
    ][::core::mem::offset_of!(ivshmem_info, protocol) - 24usize];
    [
        "Offset of field: ivshmem_info::reserved",
    ][::core::mem::offset_of!(ivshmem_info, reserved) - 28usize];
    [
        "Offset of field: ivshmem_info::region_size",
    ][::core::mem::offset_of!(ivshmem_info, region_size) - 32usize];
    [
        "Offset of field: ivshmem_info::state_table",
    ][::core::mem::offset_of!(ivshmem_info, state_table) - 40usize];
    [
        "Offset of field: ivshmem_info::rw",
    ][::core::mem::offset_of!(ivshmem_info, rw) - 64usize];
    [
        "Offset of field: ivshmem_info::outputs",
    ][::core::mem::offset_of!(ivshmem_info, outputs) - 88usize];
    [
        "Offset of field: ivshmem_info::output",
    ][::core::mem::offset_of!(ivshmem_info, output) - 112usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct ivshmem_state {
    pub peer: __u32,
    pub value: __u32,
    pub flags: __u32,
    pub reserved: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ivshmem_state"][::core::mem::size_of::<ivshmem_state>() - 16usize];
    ["Alignment of ivshmem_state"][::core::mem::align_of::<ivshmem_state>() - 4usize];
    [
        "Offset of field: ivshmem_state::peer",
    ][::core::mem::offset_of!(ivshmem_state, peer) - 0usize];
    [
        "Offset of field: ivshmem_state::value",
    ][::core::mem::offset_of!(ivshmem_state, value) - 4usize];
    [
        "Offset of field: ivshmem_state::flags",
    ][::core::mem::offset_of!(ivshmem_state, flags) - 8usize];
    [
        "Offset of field: ivshmem_state::reserved",
    ][::core::mem::offset_of!(ivshmem_state, reserved) - 12usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct ivshmem_doorbell {
    pub peer: __u32,
    pub vector: __u32,
    pub flags: __u32,
    pub reserved: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ivshmem_doorbell"][::core::mem::size_of::<ivshmem_doorbell>() - 16usize];
    [
        "Alignment of ivshmem_doorbell",
    ][::core::mem::align_of::<ivshmem_doorbell>() - 4usize];
    [
        "Offset of field: ivshmem_doorbell::peer",
    ][::core::mem::offset_of!(ivshmem_doorbell, peer) - 0usize];
    [
        "Offset of field: ivshmem_doorbell::vector",
    ][::core::mem::offset_of!(ivshmem_doorbell, vector) - 4usize];
    [
        "Offset of field: ivshmem_doorbell::flags",
    ][::core::mem::offset_of!(ivshmem_doorbell, flags) - 8usize];
    [
        "Offset of field: ivshmem_doorbell::reserved",
    ][::core::mem::offset_of!(ivshmem_doorbell, reserved) - 12usize];
};
pub const IVSHMEM_EVENT_DOORBELL: ivshmem_event_kind = 1;
pub const IVSHMEM_EVENT_STATE: ivshmem_event_kind = 2;
pub type ivshmem_event_kind = ::core::ffi::c_uint;
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct ivshmem_event {
    pub kind: __u32,
    pub index: __u32,
    pub flags: __u32,
    pub old_state: __u32,
    pub new_state: __u32,
    pub reserved: __u32,
    pub count: __u64,
    pub changes: __u64,
    pub time: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ivshmem_event"][::core::mem::size_of::<ivshmem_event>() - 48usize];
    ["Alignment of ivshmem_event"][::core::mem::align_of::<ivshmem_event>() - 8usize];
    [
        "Offset of field: ivshmem_event::kind",
    ][::core::mem::offset_of!(ivshmem_event, kind) - 0usize];
    [
        "Offset of field: ivshmem_event::index",
    ][::core::mem::offset_of!(ivshmem_event, index) - 4usize];
    [
        "Offset of field: ivshmem_event::flags",
    ][::core::mem::offset_of!(ivshmem_event, flags) - 8usize];
    [
        "Offset of field: ivshmem_event::old_state",
    ][::core::mem::offset_of!(ivshmem_event, old_state) - 12usize];
    [
        "Offset of field: ivshmem_event::new_state",
    ][::core::mem::offset_of!(ivshmem_event, new_state) - 16usize];
    [
        "Offset of field: ivshmem_event::reserved",
    ][::core::mem::offset_of!(ivshmem_event, reserved) - 20usize];
    [
        "Offset of field: ivshmem_event::count",
    ][::core::mem::offset_of!(ivshmem_event, count) - 24usize];
    [
        "Offset of field: ivshmem_event::changes",
    ][::core::mem::offset_of!(ivshmem_event, changes) - 32usize];
    [
        "Offset of field: ivshmem_event::time",
    ][::core::mem::offset_of!(ivshmem_event, time) - 40usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct ivshmem_events {
    pub records: __u64,
    pub capacity: __u32,
    pub count: __u32,
    pub record_size: __u32,
    pub flags: __u32,
    pub deadline: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ivshmem_events"][::core::mem::size_of::<ivshmem_events>() - 32usize];
    ["Alignment of ivshmem_events"][::core::mem::align_of::<ivshmem_events>() - 8usize];
    [
        "Offset of field: ivshmem_events::records",
    ][::core::mem::offset_of!(ivshmem_events, records) - 0usize];
    [
        "Offset of field: ivshmem_events::capacity",
    ][::core::mem::offset_of!(ivshmem_events, capacity) - 8usize];
    [
        "Offset of field: ivshmem_events::count",
    ][::core::mem::offset_of!(ivshmem_events, count) - 12usize];
    [
        "Offset of field: ivshmem_events::record_size",
    ][::core::mem::offset_of!(ivshmem_events, record_size) - 16usize];
    [
        "Offset of field: ivshmem_events::flags",
    ][::core::mem::offset_of!(ivshmem_events, flags) - 20usize];
    [
        "Offset of field: ivshmem_events::deadline",
    ][::core::mem::offset_of!(ivshmem_events, deadline) - 24usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct ivshmem_subscribe {
    pub kind: __u32,
    pub index: __u32,
    pub flags: __u32,
    pub reserved: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ivshmem_subscribe"][::core::mem::size_of::<ivshmem_subscribe>() - 16usize];
    [
        "Alignment of ivshmem_subscribe",
    ][::core::mem::align_of::<ivshmem_subscribe>() - 4usize];
    [
        "Offset of field: ivshmem_subscribe::kind",
    ][::core::mem::offset_of!(ivshmem_subscribe, kind) - 0usize];
    [
        "Offset of field: ivshmem_subscribe::index",
    ][::core::mem::offset_of!(ivshmem_subscribe, index) - 4usize];
    [
        "Offset of field: ivshmem_subscribe::flags",
    ][::core::mem::offset_of!(ivshmem_subscribe, flags) - 8usize];
    [
        "Offset of field: ivshmem_subscribe::reserved",
    ][::core::mem::offset_of!(ivshmem_subscribe, reserved) - 12usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct ivshmem_eventfd {
    pub kind: __u32,
    pub index: __u32,
    pub fd: __s32,
    pub flags: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ivshmem_eventfd"][::core::mem::size_of::<ivshmem_eventfd>() - 16usize];
    [
        "Alignment of ivshmem_eventfd",
    ][::core::mem::align_of::<ivshmem_eventfd>() - 4usize];
    [
        "Offset of field: ivshmem_eventfd::kind",
    ][::core::mem::offset_of!(ivshmem_eventfd, kind) - 0usize];
    [
        "Offset of field: ivshmem_eventfd::index",
    ][::core::mem::offset_of!(ivshmem_eventfd, index) - 4usize];
    [
        "Offset of field: ivshmem_eventfd::fd",
    ][::core::mem::offset_of!(ivshmem_eventfd, fd) - 8usize];
    [
        "Offset of field: ivshmem_eventfd::flags",
    ][::core::mem::offset_of!(ivshmem_eventfd, flags) - 12usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct ivshmem_connect {
    pub peer: __u32,
    pub port: __u32,
    pub flags: __u32,
    pub reserved: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ivshmem_connect"][::core::mem::size_of::<ivshmem_connect>() - 16usize];
    [
        "Alignment of ivshmem_connect",
    ][::core::mem::align_of::<ivshmem_connect>() - 4usize];
    [
        "Offset of field: ivshmem_connect::peer",
    ][::core::mem::offset_of!(ivshmem_connect, peer) - 0usize];
    [
        "Offset of field: ivshmem_connect::port",
    ][::core::mem::offset_of!(ivshmem_connect, port) - 4usize];
    [
        "Offset of field: ivshmem_connect::flags",
    ][::core::mem::offset_of!(ivshmem_connect, flags) - 8usize];
    [
        "Offset of field: ivshmem_connect::reserved",
    ][::core::mem::offset_of!(ivshmem_connect, reserved) - 12usize];
};
pub const IVSHMEM_CHANNEL_WAITING: ivshmem_channel_link = 1;
pub const IVSHMEM_CHANNEL_UP: ivshmem_channel_link = 2;
pub const IVSHMEM_CHANNEL_CLOSING: ivshmem_channel_link = 3;
pub const IVSHMEM_CHANNEL_RESET: ivshmem_channel_link = 4;
pub const IVSHMEM_CHANNEL_BROKEN: ivshmem_channel_link = 5;
pub const IVSHMEM_CHANNEL_GONE: ivshmem_channel_link = 6;
pub type ivshmem_channel_link = ::core::ffi::c_uint;
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct ivshmem_channel_status {
    pub link: __u32,
    pub max_message: __u32,
    pub sent: __u64,
    pub confirmed: __u64,
    pub received: __u64,
    pub acknowledged: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of ivshmem_channel_status",
    ][::core::mem::size_of::<ivshmem_channel_status>() - 40usize];
    [
        "Alignment of ivshmem_channel_status",
    ][::core::mem::align_of::<ivshmem_channel_status>() - 8usize];
    [
        "Offset of field: ivshmem_channel_status::link",
    ][::core::mem::offset_of!(ivshmem_channel_status, link) - 0usize];
    [
        "Offset of field: ivshmem_channel_status::max_message",
    ][::core::mem::offset_of!(ivshmem_channel_status, max_message) - 4usize];
    [
        "Offset of field: ivshmem_channel_status::sent",
    ][::core::mem::offset_of!(ivshmem_channel_status, sent) - 8usize];
    [
        "Offset of field: ivshmem_channel_status::confirmed",
    ][::core::mem::offset_of!(ivshmem_channel_status, confirmed) - 16usize];
    [
        "Offset of field: ivshmem_channel_status::received",
    ][::core::mem::offset_of!(ivshmem_channel_status, received) - 24usize];
    [
        "Offset of field: ivshmem_channel_status::acknowledged",
    ][::core::mem::offset_of!(ivshmem_channel_status, acknowledged) - 32usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct ivshmem_channel_ack {
    pub number: __u64,
    pub flags: __u32,
    pub reserved: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of ivshmem_channel_ack",
    ][::core::mem::size_of::<ivshmem_channel_ack>() - 16usize];
    [
        "Alignment of ivshmem_channel_ack",
    ][::core::mem::align_of::<ivshmem_channel_ack>() - 8usize];
    [
        "Offset of field: ivshmem_channel_ack::number",
    ][::core::mem::offset_of!(ivshmem_channel_ack, number) - 0usize];
    [
        "Offset of field: ivshmem_channel_ack::flags",
    ][::core::mem::offset_of!(ivshmem_channel_ack, flags) - 8usize];
    [
        "Offset of field: ivshmem_channel_ack::reserved",
    ][::core::mem::offset_of!(ivshmem_channel_ack, reserved) - 12usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct ivshmem_channel_wait {
    pub number: __u64,
    pub deadline: __u64,
    pub confirmed: __u64,
    pub flags: __u32,
    pub reserved: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of ivshmem_channel_wait",
    ][::core::mem::size_of::<ivshmem_channel_wait>() - 32usize];
    [
        "Alignment of ivshmem_channel_wait",
    ][::core::mem::align_of::<ivshmem_channel_wait>() - 8usize];
    [
        "Offset of field: ivshmem_channel_wait::number",
    ][::core::mem::offset_of!(ivshmem_channel_wait, number) - 0usize];
    [
        "Offset of field: ivshmem_channel_wait::deadline",
    ][::core::mem::offset_of!(ivshmem_channel_wait, deadline) - 8usize];
    [
        "Offset of field: ivshmem_channel_wait::confirmed",
    ][::core::mem::offset_of!(ivshmem_channel_wait, confirmed) - 16usize];
    [
        "Offset of field: ivshmem_channel_wait::flags",
    ][::core::mem::offset_of!(ivshmem_channel_wait, flags) - 24usize];
    [
        "Offset of field: ivshmem_channel_wait::reserved",
    ][::core::mem::offset_of!(ivshmem_channel_wait, reserved) - 28usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct ivshmem_channel_eventfd {
    pub fd: __s32,
    pub flags: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of ivshmem_channel_eventfd",
    ][::core::mem::size_of::<ivshmem_channel_eventfd>() - 8usize];
    [
        "Alignment of ivshmem_channel_eventfd",
    ][::core::mem::align_of::<ivshmem_channel_eventfd>() - 4usize];
    [
        "Offset of field: ivshmem_channel_eventfd::fd",
    ][::core::mem::offset_of!(ivshmem_channel_eventfd, fd) - 0usize];
    [
        "Offset of field: ivshmem_channel_eventfd::flags",
    ][::core::mem::offset_of!(ivshmem_channel_eventfd, flags) - 4usize];
};
