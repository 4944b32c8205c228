// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kinds of operations, as they are counted.

macro_rules! kinds {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// A kind of operation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Kind { $(#[doc = $text] $name),* }

        impl Kind {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

kinds! {
    Open = "open",
    Close = "close",
    Dup = "dup",
    Read = "read",
    Write = "write",
    Seek = "lseek",
    Map = "mmap",
    Unmap = "munmap",
    Protect = "mprotect",
    Remap = "mremap",
    Advise = "madvise",
    SyncMap = "msync",
    Load = "load",
    Store = "store",
    Poll = "poll",
    Select = "select",
    EpollCtl = "epoll_ctl",
    EpollWait = "epoll_wait",
    Info = "info",
    GetState = "get_state",
    SetState = "set_state",
    Doorbell = "doorbell",
    Events = "events",
    Subscribe = "subscribe",
    Attach = "eventfd",
    OtherIoctl = "ioctl-other",
    EventFd = "eventfd-file",
    Fcntl = "fcntl",
    Sync = "fsync",
    Splice = "splice",
    SendFile = "sendfile",
    Stat = "fstat",
    NoFile = "not-a-file",
    Pass = "scm-rights",
    Receive = "scm-receive",
    Fork = "fork",
    FdInfo = "fdinfo",
    SysRead = "sysfs-read",
    SysWrite = "sysfs-write",
    Connect = "ch-connect",
    Renew = "ch-renew",
    Claim = "ch-claim",
    ChannelClose = "ch-close",
    ChannelDup = "ch-dup",
    Send = "ch-send",
    Take = "ch-receive",
    ChannelPoll = "ch-poll",
    Status = "ch-status",
    NextSize = "ch-fionread",
    Acknowledge = "ch-ack",
    WaitConfirmed = "ch-wait",
    ChannelAttach = "ch-eventfd",
    ChannelSync = "ch-fsync",
    ChannelFcntl = "ch-fcntl",
    ChannelPass = "ch-pass",
    ChannelIoctl = "ch-ioctl-other",
    ChannelOther = "ch-other",
}
