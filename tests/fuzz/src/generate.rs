// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which operation comes next: valid sequences often enough that deep states are reached, with
//! mutations of every field.

mod calls;
mod channels;
mod numbers;

use crate::facts::Facts;
use crate::op::{
    Buffer, How, Op, Pages, Slot, Wait, EPOLLS, EVENTFDS, FIRST_EPOLL, FIRST_EVENTFD, SLOTS,
};
use crate::random::Random;
use crate::sys::PAGE;

/// Areas of the arena in which operations meet.
const AREAS: u64 = 8;
/// Pages of an area.
const AREA: u64 = 16;

type Make = fn(&mut Random, &Facts) -> Op;

/// How often each kind comes, in parts of their sum. Calls of the device's own are most of them: on a kernel with all
/// checkers, what changes a process's memory takes ten times as long as they do, a look into /proc or sysfs fifty
/// times, a fork five hundred times. Those are rare, so that a long run does many of all.
const WEIGHTS: &[(u64, Make)] = &[
    (200, open),
    (60, |r, _| Op::Close { slot: slot(r) }),
    (60, dup),
    (900, read),
    (900, write),
    (250, seek),
    (120, map),
    (10, map_huge),
    (15, |r, _| Op::MapPlain { at: pages(r) }),
    (25, |r, _| Op::Unmap { at: pages(r) }),
    (40, |r, _| Op::Protect {
        at: pages(r),
        rights: rights(r),
    }),
    (15, |r, _| Op::Remap {
        from: pages(r),
        to: pages(r),
    }),
    (40, advise),
    (15, |r, _| Op::SyncMap {
        at: pages(r),
        flags: r.below(8) as i32,
    }),
    (200, |r, _| Op::Load { at: arena(r) }),
    (200, |r, _| Op::Store {
        at: arena(r),
        value: r.any() as u32,
    }),
    (400, poll),
    (100, |r, _| Op::Select {
        slot: slot(r),
        other: slot(r),
        wait: wait(r),
    }),
    (100, epoll_ctl),
    (100, epoll_wait),
    (150, calls::info),
    (200, calls::get_state),
    (500, calls::set_state),
    (700, calls::doorbell),
    (900, calls::events),
    (300, calls::subscribe),
    (300, calls::eventfd),
    (250, calls::other),
    (150, |r, _| Op::EventFd {
        index: r.below(EVENTFDS.into()) as u8,
        what: r.below(16) as u8,
    }),
    (120, fcntl),
    (80, |r, _| Op::Sync {
        slot: slot(r),
        what: r.below(3) as u8,
    }),
    (120, splice),
    (100, send_file),
    (40, |r, _| Op::Stat { slot: slot(r) }),
    (80, no_file),
    (15, |r, _| Op::Pass {
        slot: slot(r),
        process: r.below(2) as u8,
    }),
    (15, |_, _| Op::Receive),
    (1, |r, _| Op::Fork {
        slot: slot(r),
        at: [0; 4].map(|_| arena(r)),
    }),
    (6, |r, _| Op::FdInfo { slot: slot(r) }),
    (5, |r, _| Op::SysRead {
        path: r.any() as u16,
    }),
    (2, |r, _| Op::SysWrite {
        path: r.any() as u16,
        garbage: r.any(),
    }),
];

/// Operation `number` of `thread`.
pub(crate) fn generate(seed: u64, thread: u64, number: u64, facts: &Facts) -> Op {
    let mut random = Random::of(seed, thread, number);
    if !facts.has_channels() {
        return weighted(WEIGHTS, &mut random, facts);
    }
    if random.one_in(4) {
        let raw = weighted(WEIGHTS, &mut random, facts);
        return channels::tame(raw, facts);
    }
    channels::generate(&mut random, facts)
}

/// One of `weights`.
fn weighted(weights: &[(u64, Make)], random: &mut Random, facts: &Facts) -> Op {
    let sum = weights.iter().map(|(weight, _)| weight).sum();
    let mut at = random.below(sum);
    for (weight, make) in weights {
        if at < *weight {
            return make(random, facts);
        }
        at -= weight;
    }
    unreachable!("below the sum of all weights")
}

/// Any slot; those for reading and writing are most of them.
fn slot(r: &mut Random) -> Slot {
    // The first ten are those.
    let limit = if r.one_in(2) { 10 } else { SLOTS };
    Slot(r.below(limit.into()) as u8)
}

fn arena(r: &mut Random) -> u32 {
    r.below(AREAS * AREA * PAGE as u64 - 4) as u32
}

fn pages(r: &mut Random) -> Pages {
    let area = r.below(AREAS) * AREA;
    let inside = if r.one_in(2) { 0 } else { r.below(AREA) };
    // Mostly few: each page costs.
    let count = match r.below(16) {
        0 => AREA - inside,
        1 | 2 => 1 + r.below(AREA - inside),
        _ => (1 + r.below(3)).min(AREA - inside),
    };
    Pages {
        first: (area + inside) as u16,
        count: count as u16,
    }
}

fn buffer(r: &mut Random) -> Buffer {
    match r.below(16) {
        0 => Buffer::Nowhere(r.below(5) as u8),
        1..=4 => Buffer::Arena(arena(r)),
        _ => Buffer::Own,
    }
}

fn wait(r: &mut Random) -> Wait {
    match r.below(256) {
        // Until the watchdog, or somebody's event.
        0 => Wait::Never,
        1..=4 => Wait::At(r.magnitude()),
        5..=30 => Wait::Micros(r.below(1000) as u32),
        _ => Wait::Now,
    }
}

fn rights(r: &mut Random) -> i32 {
    let read_write = libc::PROT_READ | libc::PROT_WRITE;
    r.pick(&[
        libc::PROT_READ,
        libc::PROT_READ,
        read_write,
        read_write,
        read_write,
        libc::PROT_NONE,
        libc::PROT_WRITE,
        libc::PROT_READ | libc::PROT_EXEC,
        read_write | libc::PROT_EXEC,
    ])
}

fn open(r: &mut Random, _: &Facts) -> Op {
    let odd = [
        libc::O_TRUNC,
        libc::O_APPEND,
        libc::O_DIRECTORY,
        libc::O_DIRECT,
        libc::O_SYNC,
        libc::O_ASYNC,
        libc::O_NOATIME,
        libc::O_NOFOLLOW,
        libc::O_EXCL,
        libc::O_LARGEFILE,
        1 << 30,
    ];
    let mut flags = if r.one_in(4) { libc::O_NONBLOCK } else { 0 };
    if r.one_in(8) {
        flags |= r.pick(&odd) | r.pick(&odd);
    }
    Op::Open {
        slot: slot(r),
        flags,
    }
}

fn dup(r: &mut Random, _: &Facts) -> Op {
    let from = slot(r);
    // The slots of both modes are the first ten.
    let to = if from.0 < 10 {
        Slot(r.below(5) as u8 * 2 + (from.0 & 1))
    } else {
        from
    };
    Op::Dup { from, to }
}

fn how(r: &mut Random, facts: &Facts) -> How {
    match r.below(8) {
        0 | 1 => How::Plain,
        2 => How::Parts(r.below(9) as u8),
        3 => {
            let flags = r.pick(&[
                0,
                0,
                8,
                8,
                8,
                1,
                2,
                4,
                0x10,
                0x20,
                0x40,
                0x80,
                0x18,
                1 << 20,
            ]);
            How::Flags(numbers::offset(r, facts), flags)
        }
        _ => How::At(numbers::offset(r, facts)),
    }
}

fn read(r: &mut Random, facts: &Facts) -> Op {
    Op::Read {
        slot: slot(r),
        how: how(r, facts),
        to: buffer(r),
        length: numbers::length(r, facts),
    }
}

fn write(r: &mut Random, facts: &Facts) -> Op {
    Op::Write {
        slot: slot(r),
        how: how(r, facts),
        from: buffer(r),
        length: numbers::length(r, facts),
    }
}

fn seek(r: &mut Random, facts: &Facts) -> Op {
    let offset = match r.below(4) {
        0 => r.below(64) as i64 - 32,
        _ => numbers::offset(r, facts),
    };
    let whence = if r.one_in(16) {
        r.any() as i32
    } else {
        r.below(5) as i32
    };
    Op::Seek {
        slot: slot(r),
        offset,
        whence,
    }
}

fn map(r: &mut Random, facts: &Facts) -> Op {
    let slot = slot(r);
    let mut at = pages(r);
    let mut rights = rights(r);
    let mut flags = libc::MAP_SHARED;
    let mut offset = numbers::offset(r, facts) as u64 & !(PAGE as u64 - 1);
    if !r.one_in(4) {
        // One that can be made.
        let sections = [
            facts.rw,
            facts.output_of(Facts::own_id(slot)),
            facts.output_of(0),
            facts.output_of(1),
        ];
        let section = r.pick(&sections);
        let pages = (section.size / PAGE as u64).max(1);
        let skipped = r.below(pages);
        offset = section.offset + skipped * PAGE as u64;
        at.count = at.count.min((pages - skipped) as u16);
        rights &= !libc::PROT_EXEC;
    }
    if r.one_in(8) {
        flags = r.pick(&[
            libc::MAP_PRIVATE,
            0,
            3,
            libc::MAP_SHARED | 0x8000,
            libc::MAP_SHARED | 0x2000,
        ]);
    }
    if r.one_in(32) {
        offset = offset.wrapping_add(r.below(PAGE as u64));
    }
    Op::Map {
        slot,
        at,
        offset,
        rights,
        flags,
    }
}

fn map_huge(r: &mut Random, facts: &Facts) -> Op {
    let length = (facts.region + 1).saturating_add(r.magnitude());
    Op::MapHuge {
        slot: slot(r),
        length,
        offset: numbers::offset(r, facts) as u64 & !(PAGE as u64 - 1),
    }
}

fn advise(r: &mut Random, _: &Facts) -> Op {
    let advice = if r.one_in(16) {
        r.any() as i32
    } else {
        r.below(27) as i32
    };
    // Poisoning a page is for the tests of memory failures. And what is wiped in a child trips an assertion of a
    // kernel with DEBUG_VM (assert_sane_pgoff) when it had been moved before, and is split there: no device is needed
    // for that.
    let advice = if matches!(advice, 100 | 101 | libc::MADV_WIPEONFORK) {
        0
    } else {
        advice
    };
    Op::Advise {
        at: pages(r),
        advice,
    }
}

fn poll(r: &mut Random, _: &Facts) -> Op {
    let events = if r.one_in(4) {
        r.any() as i16
    } else {
        r.pick(&[1, 2, 4, 3, 5, 0])
    };
    Op::Poll {
        slot: slot(r),
        other: slot(r),
        events,
        wait: wait(r),
    }
}

fn epoll_ctl(r: &mut Random, facts: &Facts) -> Op {
    let fd = match r.below(8) {
        _ if facts.has_channels() && r.one_in(2) => channels::channel(r, facts).fd(),
        0 => FIRST_EVENTFD + r.below(EVENTFDS.into()) as i32,
        1 => FIRST_EPOLL + r.below(EPOLLS.into()) as i32,
        _ => slot(r).fd(),
    };
    let special = r.pick(&[
        0,
        0,
        libc::EPOLLET,
        libc::EPOLLONESHOT,
        libc::EPOLLEXCLUSIVE,
        libc::EPOLLWAKEUP,
    ]) as u32;
    let change = if r.one_in(32) {
        r.any() as i32
    } else {
        1 + r.below(3) as i32
    };
    Op::EpollCtl {
        epoll: r.below(EPOLLS.into()) as u8,
        change,
        fd,
        events: r.below(0x800) as u32 | special,
    }
}

fn epoll_wait(r: &mut Random, _: &Facts) -> Op {
    let room = if r.one_in(16) {
        r.any() as i32 % 64
    } else {
        1 + r.below(16) as i32
    };
    Op::EpollWait {
        epoll: r.below(EPOLLS.into()) as u8,
        wait: wait(r),
        room,
    }
}

fn fcntl(r: &mut Random, _: &Facts) -> Op {
    let status = [
        0,
        libc::O_NONBLOCK,
        libc::O_APPEND,
        libc::O_ASYNC,
        libc::O_DIRECT,
        libc::O_NOATIME,
    ];
    let (command, argument) = match r.below(12) {
        0..=3 => (libc::F_SETFL, r.pick(&status) | r.pick(&status)),
        // The usual state, so that waits wait.
        4 | 5 => (libc::F_SETFL, 0),
        6 => (libc::F_GETFL, 0),
        7 => (libc::F_SETFD, r.below(2) as i32),
        8 => (libc::F_SETLEASE, r.below(4) as i32),
        9 => (libc::F_ADD_SEALS, r.any() as i32),
        10 => (libc::F_SETPIPE_SZ, 4096),
        _ => (1000 + r.below(1000) as i32 + 100, 0),
    };
    Op::Fcntl {
        slot: slot(r),
        command,
        argument,
    }
}

fn splice(r: &mut Random, facts: &Facts) -> Op {
    let offset = (!r.one_in(3)).then(|| numbers::offset(r, facts));
    Op::Splice {
        slot: slot(r),
        out: r.one_in(2),
        offset,
        length: r.below(8192) as u32,
        flags: r.below(32) as u32,
    }
}

fn send_file(r: &mut Random, facts: &Facts) -> Op {
    let offset = (!r.one_in(3)).then(|| numbers::offset(r, facts));
    Op::SendFile {
        slot: slot(r),
        out: r.one_in(2),
        offset,
        length: r.below(8192) as u32,
    }
}

fn no_file(r: &mut Random, facts: &Facts) -> Op {
    let (offset, length) = (numbers::offset(r, facts), numbers::length(r, facts) as i64);
    Op::NoFile {
        slot: slot(r),
        what: r.below(7) as u8,
        offset,
        length,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Channels;
    use crate::kinds::Kind;
    use proptest::prelude::*;

    fn facts() -> Facts {
        Facts::sample(Channels::None)
    }

    #[test]
    fn every_kind_comes() {
        let mut seen = vec![0; Kind::ALL.len()];
        for number in 0..1_000_000 {
            for facts in [facts(), Facts::sample(Channels::Honest)] {
                seen[generate(1, 0, number, &facts).kind() as usize] += 1;
            }
        }
        for (kind, count) in Kind::ALL.iter().zip(seen) {
            assert!(count > 50, "{}: {count}", kind.name());
        }
    }

    #[test]
    fn advice_that_harms_the_kernel_without_a_device_never_comes() {
        let mut seen = 0;
        for number in 0..500_000 {
            if let Op::Advise { advice, .. } = generate(1, 0, number, &facts()) {
                assert!(![100, 101, libc::MADV_WIPEONFORK].contains(&advice));
                seen += 1;
            }
        }
        assert!(seen > 1000, "{seen}");
    }

    #[test]
    fn seeds_threads_and_numbers_make_a_difference() {
        let of = |seed, thread| {
            (0..50)
                .map(|n| generate(seed, thread, n, &facts()))
                .collect::<Vec<_>>()
        };
        assert_ne!(of(1, 0), of(2, 0));
        assert_ne!(of(1, 0), of(1, 1));
    }

    proptest! {
        #[test]
        fn an_operation_is_a_function_of_seed_thread_and_number(seed: u64, thread in 0..64u64, number: u64) {
            prop_assert_eq!(
                generate(seed, thread, number, &facts()),
                generate(seed, thread, number, &facts())
            );
        }

        #[test]
        fn memory_stays_in_the_arena(seed: u64, number: u64) {
            match generate(seed, 0, number, &facts()) {
                Op::Map { at, .. } | Op::Unmap { at } | Op::Protect { at, .. } | Op::Advise { at, .. } => {
                    prop_assert!((usize::from(at.first) + usize::from(at.count)) * PAGE <= crate::sys::ARENA);
                }
                Op::Load { at } | Op::Store { at, .. } => prop_assert!(at as usize + 4 <= crate::sys::ARENA),
                _ => {}
            }
        }
    }
}
