// SPDX-License-Identifier: MIT OR Apache-2.0
//! One open file in several processes: passed over a socket, inherited, mapped; and what each may do.

use super::{drain, open_file, soon, wait, Env, Test};
use crate::helpers::{self, Helper};
use crate::raw::{self, bytes_of_mut, Outcome};
use crate::system;
use ivshmem::uapi::{self, ivshmem_doorbell, ivshmem_event, ivshmem_events, ivshmem_state};
use ivshmem::{Error, StateFlags};
use rustix::io::Errno;
use rustix::net::{recvmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

pub(super) const TESTS: &[Test] = &[
    Test::new(
        "SCM_RIGHTS: the sender exits, and state, position and events stay with the open file",
        passed,
    )
    .only_if(super::interrupts),
    // bad input: a file that was sent over a socket and is never received => closed when the socket goes: its state returns to 0
    Test::new(
        "SCM_RIGHTS: a file on its way in a socket is open, one that is never received is closed",
        on_its_way,
    ),
    // bad input: `open` by an unprivileged process => `EACCES`; a file that was passed to it works
    Test::new(
        "SCM_RIGHTS: an unprivileged process can use what it was given, and open nothing itself",
        unprivileged,
    ),
    // bad input: changing something through a file open for reading only that was passed => `EBADF`
    Test::new(
        "SCM_RIGHTS: a file open for reading only stays so",
        passed_read_only,
    ),
    Test::new(
        "dup and fork share one cursor: an event that one has fetched the others do not see",
        shared_cursor,
    )
    .only_if(super::interrupts),
    Test::new(
        "dup and fork share the ownership of the state",
        shared_owner,
    ),
    // bad input: SIGKILL to a process that shares its file with others => the state stays until the last has gone
    Test::new(
        "a process killed by SIGKILL gives the state back only with the last copy of the file",
        killed_copies,
    ),
    Test::new(
        "a live mapping keeps its file open: the state returns to 0 when it goes",
        mapping_keeps_open,
    )
    .of_whole_pages(),
    Test::new(
        "several processes each see the last of many doorbells",
        several_processes,
    )
    .only_if(super::interrupts),
    // bad input: any operation that changes something, through a file open for reading only => `EBADF`; `EACCES` for `mmap` and `mprotect`; `EPERM` for `PROT_EXEC`; `EINVAL` for `ftruncate`
    Test::new(
        "a file open for reading only: every operation that changes anything is refused",
        read_only,
    )
    .of_whole_pages(),
];

/// Where helpers find us.
pub(super) struct Meeting {
    path: PathBuf,
    listener: UnixListener,
}

impl Meeting {
    pub(super) fn new() -> Self {
        let path = PathBuf::from(format!("/tmp/meeting-{}", std::process::id()));
        let listener = UnixListener::bind(&path).expect("a socket");
        Self { path, listener }
    }

    /// Its name.
    pub(super) fn path(&self) -> &str {
        self.path.to_str().expect("a plain name")
    }

    /// A helper that has come.
    pub(super) fn accept(&self) -> UnixStream {
        self.listener.accept().expect("accept").0
    }

    /// Starts a helper that opens the device, publishes 7, rings itself twice, fetches the first
    /// doorbell, moves the position to `position`, sends the file here, and ends.
    fn sender(&self, env: &Env, mode: &str, position: u64) -> (UnixStream, Helper) {
        let node = env.node().to_str().expect("a plain name");
        let position = position.to_string();
        let helper = helpers::start("give", &[node, self.path(), mode, &position]);
        (self.accept(), helper.ready())
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Takes the file out of the socket.
pub(super) fn receive(stream: &UnixStream) -> OwnedFd {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).expect("recvmsg");
    let mut received = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    received.next().expect("a file")
}

/// A file that the helper has sent; the helper has ended.
fn received(env: &Env, mode: &str, position: u64) -> OwnedFd {
    let meeting = Meeting::new();
    let (stream, helper) = meeting.sender(env, mode, position);
    assert_eq!(helper.wait().code(), Some(0));
    receive(&stream)
}

fn set_state(file: impl AsFd, own: u32, value: u32) -> Outcome {
    let mut state = ivshmem_state {
        peer: own,
        value,
        ..Default::default()
    };
    let call = uapi::IVSHMEM_IOC_SET_STATE;
    raw::ioctl(file, call, bytes_of_mut(&mut state))
}

fn state(file: impl AsFd, peer: u32) -> u32 {
    let mut state = ivshmem_state {
        peer,
        ..Default::default()
    };
    let call = uapi::IVSHMEM_IOC_GET_STATE;
    raw::ioctl(file, call, bytes_of_mut(&mut state)).expect("the state");
    state.value
}

fn ring(file: impl AsFd, peer: u32, vector: u32) -> Outcome {
    let mut doorbell = ivshmem_doorbell {
        peer,
        vector,
        ..Default::default()
    };
    let call = uapi::IVSHMEM_IOC_DOORBELL;
    raw::ioctl(file, call, bytes_of_mut(&mut doorbell))
}

/// Fetches one event that is there already.
fn fetch(file: impl AsFd) -> Result<ivshmem_event, Errno> {
    let mut event = ivshmem_event::default();
    let mut request = ivshmem_events {
        records: bytes_of_mut(&mut event).as_mut_ptr() as u64,
        capacity: 1,
        record_size: size_of::<ivshmem_event>() as u32,
        deadline: uapi::IVSHMEM_DEADLINE_NOW.into(),
        ..Default::default()
    };
    let call = uapi::IVSHMEM_IOC_EVENTS;
    raw::ioctl(file, call, bytes_of_mut(&mut request))?;
    Ok(event)
}

/// Whether our state returns to 0.
fn returns(env: &Env) -> bool {
    let watcher = open_file(env.node(), true, false, 0);
    let own = env.expected().peer;
    system::wait_until(soon(), || state(&watcher, own) == 0)
}

fn passed(env: &Env) {
    let own = env.expected().peer;
    let file = received(env, "rw", 1234);
    assert_eq!(state(&file, own), 7, "the sender's end has taken it back");
    assert_eq!(raw::lseek(&file, 0, libc::SEEK_CUR), Ok(1234));
    let event = fetch(&file).expect("the second doorbell");
    assert_eq!((event.index, event.count), (env.vectors() - 1, 1));
    assert_eq!(fetch(&file).map(drop), Err(Errno::AGAIN));
    let second = env.open();
    let busy = second.set_state(8, StateFlags::default());
    assert_eq!(busy, Err(Error::StateOwned), "it is still owned");
    assert_eq!(set_state(&file, own, 9), Ok(0), "by the open file");
    assert_eq!(state(&file, own), 9);
    drop(file);
    assert_eq!(second.state(own), Ok(0), "the last close");
}

fn on_its_way(env: &Env) {
    let own = env.expected().peer;
    let watcher = env.open();
    let meeting = Meeting::new();
    let (stream, helper) = meeting.sender(env, "rw", 0);
    assert_eq!(helper.wait().code(), Some(0));
    assert_eq!(watcher.state(own), Ok(7), "it is on its way");
    drop(stream);
    assert!(returns(env), "nobody can ever receive it");
}

fn unprivileged(env: &Env) {
    let own = env.expected().peer;
    let file = received(env, "rw", 0);
    raw::in_child(|| {
        raw::become_nobody();
        let error = File::open(env.node()).expect_err("nobody may open it");
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
        assert_eq!(set_state(&file, own, 11), Ok(0));
        assert_eq!(ring(&file, own, 0), Ok(0));
        let offset = env.expected().output_offset(own) as i64;
        assert_eq!(raw::pwrite(&file, b"nobody", offset), Ok(6));
    });
    assert_eq!(state(&file, own), 11);
}

fn passed_read_only(env: &Env) {
    let own = env.expected().peer;
    let file = received(env, "ro", 8);
    assert_eq!(raw::lseek(&file, 0, libc::SEEK_CUR), Ok(8));
    assert_eq!(set_state(&file, own, 1), Err(Errno::BADF));
    assert_eq!(ring(&file, own, 0), Err(Errno::BADF));
    let offset = env.expected().output_offset(own) as i64;
    assert_eq!(raw::pwrite(&file, &[0; 4], offset), Err(Errno::BADF));
    assert_eq!(raw::pread(&file, &mut [0; 4], offset), Ok(4));
}

fn shared_cursor(env: &Env) {
    let (device, second) = (env.open(), env.open());
    let (own, vector) = (env.expected().peer, env.vectors() - 1);
    let copy = device.as_fd().try_clone_to_owned().expect("dup");
    device.ring(own, vector).expect("ring");
    wait(&second);
    assert_eq!(fetch(&copy).expect("the doorbell").count, 1);
    assert_eq!(drain(&device), [], "the duplicate has fetched it");
    device.ring(own, vector).expect("ring");
    wait(&second);
    raw::in_child(|| assert_eq!(fetch(&device).expect("the doorbell").count, 1));
    assert_eq!(drain(&device), [], "the child has fetched it");
}

fn shared_owner(env: &Env) {
    let own = env.expected().peer;
    let (device, second) = (env.open(), env.open());
    device.set_state(7, StateFlags::default()).expect("publish");
    let copy = device.as_fd().try_clone_to_owned().expect("dup");
    assert_eq!(set_state(&copy, own, 8), Ok(0));
    raw::in_child(|| {
        assert_eq!(set_state(&device, own, 9), Ok(0));
        let got = second.set_state(1, StateFlags::default());
        assert_eq!(got, Err(Error::StateOwned));
    });
    assert_eq!(second.state(own), Ok(9), "the child was not the last");
    drop(device);
    assert_eq!(second.state(own), Ok(9), "the duplicate is open");
    drop(copy);
    assert_eq!(second.state(own), Ok(0));
}

fn killed_copies(env: &Env) {
    let own = env.expected().peer;
    let watcher = open_file(env.node(), true, false, 0);
    // Not close-on-exec: the helpers have it.
    let file = received(env, "rw", 0);
    let copy = rustix::io::dup(&file).expect("dup");
    let (first, second) = (helpers::start("stay", &[]), helpers::start("stay", &[]));
    let (first, second) = (first.ready(), second.ready());
    drop((file, copy));
    first.kill();
    assert_eq!(state(&watcher, own), 7, "another process has it");
    second.kill();
    assert!(returns(env), "nobody has it");
}

fn mapping_keeps_open(env: &Env) {
    let own = env.expected().peer;
    let watcher = env.open();
    let device = env.open();
    device.set_state(7, StateFlags::default()).expect("publish");
    let section = device.info().output;
    let (page, rights) = (
        rustix::param::page_size(),
        libc::PROT_READ | libc::PROT_WRITE,
    );
    let (offset, flags) = (section.offset as i64, libc::MAP_SHARED);
    let map = raw::mmap(Some(device.as_fd()), offset, page, rights, flags).expect("map");
    drop(device);
    // Touched for the first time after its descriptor has gone.
    map.store(0, 0x600d_cafe);
    assert_eq!(watcher.read_word(section.offset), Ok(0x600d_cafe));
    assert_eq!(watcher.state(own), Ok(7), "the mapping has the file");
    assert_eq!(map.protect(libc::PROT_READ), Ok(()));
    assert_eq!(map.protect(rights), Ok(()), "it was made writable");
    drop(map);
    assert_eq!(watcher.state(own), Ok(0), "the last of it");
}

fn several_processes(env: &Env) {
    let device = env.open();
    let (own, vector) = (env.expected().peer, env.vectors() - 1);
    let node = env.node().to_str().expect("a plain name");
    let word = device.info().output.offset;
    device.write_word(word, 0).expect("write");
    let last = 300;
    let arguments = [node, &word.to_string(), &last.to_string()];
    let watchers: Vec<Helper> = (0..4)
        .map(|_| helpers::start("watch-word", &arguments).ready())
        .collect();
    for number in 1..=last {
        device.write_word(word, number).expect("write");
        device.ring(own, vector).expect("ring");
    }
    for watcher in watchers {
        assert_eq!(watcher.wait().code(), Some(0));
    }
}

fn read_only(env: &Env) {
    let own = env.expected().peer;
    let (device, file) = (env.open(), open_file(env.node(), true, false, 0));
    let info = *device.info();
    let contents = || {
        let mut bytes = vec![0; info.region_size as usize];
        let length = bytes.len();
        assert_eq!(device.read_at(&mut bytes, 0), Ok(length));
        bytes
    };
    let before = contents();
    let page = rustix::param::page_size();
    for section in [info.rw, info.output] {
        let offset = section.offset as i64;
        let bytes = [0xee; 64];
        assert_eq!(raw::pwrite(&file, &bytes, offset), Err(Errno::BADF));
        assert_eq!(raw::pwritev2(&file, &bytes, offset, 0), Err(Errno::BADF));
        assert_eq!(
            raw::lseek(&file, offset, libc::SEEK_SET),
            Ok(offset as usize)
        );
        assert_eq!(rustix::io::write(&file, &bytes), Err(Errno::BADF));
        let sent = rustix::fs::sendfile(&file, &device, None, 64);
        assert_eq!(sent, Err(Errno::BADF));
        let mode = rustix::fs::FallocateFlags::empty();
        let allocated = rustix::fs::fallocate(&file, mode, section.offset, 64);
        assert_eq!(allocated, Err(Errno::BADF));
        for rights in [libc::PROT_WRITE, libc::PROT_READ | libc::PROT_WRITE] {
            let map = raw::mmap(Some(file.as_fd()), offset, page, rights, libc::MAP_SHARED);
            assert_eq!(map.map(drop), Err(Errno::ACCESS));
        }
        let rights = libc::PROT_READ | libc::PROT_EXEC;
        let map = raw::mmap(Some(file.as_fd()), offset, page, rights, libc::MAP_SHARED);
        assert_eq!(map.map(drop), Err(Errno::PERM));
        let map = raw::mmap(
            Some(file.as_fd()),
            offset,
            page,
            libc::PROT_READ,
            libc::MAP_SHARED,
        );
        let map = map.expect("a mapping for reading");
        for rights in [
            libc::PROT_WRITE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::PROT_EXEC,
        ] {
            assert_eq!(map.protect(rights), Err(Errno::ACCESS), "an upgrade");
        }
    }
    // No size to set: as of every character device.
    assert_eq!(rustix::fs::ftruncate(&file, 0), Err(Errno::INVAL));
    assert_eq!(set_state(&file, own, 1), Err(Errno::BADF));
    assert_eq!(ring(&file, own, 0), Err(Errno::BADF));
    assert!(contents() == before, "something was written");
    assert_eq!(drain(&device), [], "somebody was rung");
    assert_eq!(device.state(own), Ok(0));
}
