// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Who may read, write and map what: against a list with the writer of each single byte or page.

mod common;

use common::{demo, sections, Writer};
use ivshmem_protocol::layout::{Geometry, Layout, Refused};
use proptest::prelude::*;
use std::ops::Range;

/// Links of a few pages, with every mix of missing sections.
fn small() -> impl Strategy<Value = Geometry> {
    (2_u32..5, any::<u32>(), 1_u32..3, 0_u64..3, 0_u64..3).prop_map(
        |(max_peers, id, state_table, rw, output)| Geometry {
            id: id % max_peers,
            max_peers,
            state_table_size: state_table * 0x1000,
            rw_size: rw * 0x1000,
            output_size: output * 0x1000,
        },
    )
}

/// The same with sizes around 16 KiB and 64 KiB.
fn large() -> impl Strategy<Value = Geometry> {
    let pages = || {
        prop_oneof![
            0_u64..3,
            Just(4),
            Just(8),
            Just(15),
            Just(16),
            Just(17),
            Just(32)
        ]
    };
    (2_u32..5, any::<u32>(), pages(), pages(), pages()).prop_map(
        |(max_peers, id, state_table, rw, output)| Geometry {
            id: id % max_peers,
            max_peers,
            state_table_size: state_table.max(1) as u32 * 0x1000,
            rw_size: rw * 0x1000,
            output_size: output * 0x1000,
        },
    )
}

/// The region as a list: one entry for each `unit` bytes, telling the number of its section and
/// whether peer `geometry.id` may write there.
fn units(geometry: &Geometry, unit: i128) -> Vec<(usize, bool)> {
    let mut list = Vec::new();
    for (number, (writer, size)) in sections(geometry).into_iter().enumerate() {
        let mine = match writer {
            Writer::Nobody => false,
            Writer::Everybody => true,
            Writer::Peer(peer) => peer == geometry.id,
        };
        for _ in 0..size / unit {
            list.push((number, mine));
        }
    }
    list
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn write_agrees_with_every_byte(geometry in small()) {
        let layout = Layout::new(&geometry).unwrap();
        let bytes = units(&geometry, 1);
        prop_assert_eq!(layout.region_size(), bytes.len() as u64);
        // How many bytes from here on are writable in one go, from the end to the start.
        let mut run = 0;
        for (offset, (_, mine)) in bytes.iter().enumerate().rev() {
            run = if *mine { run + 1 } else { 0 };
            for len in [0, 1, 8, 0x1000, run.max(1) - 1, run, run + 1, u64::MAX] {
                let expected = if *mine { Ok(len.min(run)) } else { Err(Refused::ReadOnly) };
                let got = layout.write(offset as u64, len);
                // Not `prop_assert`: this runs hundreds of thousands of times.
                assert_eq!(got, expected, "{geometry:x?} {offset:#x} {len:#x}");
                assert!(len == 0 || got != Ok(0));
            }
        }
    }

    #[test]
    fn read_agrees_with_every_byte(geometry in small()) {
        let layout = Layout::new(&geometry).unwrap();
        let size = units(&geometry, 1).len();
        for offset in 0..size + 2 {
            let rest = (offset..size).len() as u64;
            for len in [0, 1, 7, 0x1000, rest, rest + 1, u64::MAX] {
                assert_eq!(layout.read(offset as u64, len), len.min(rest));
            }
        }
    }

    #[test]
    fn map_agrees_with_every_page(geometry in large(), shift in prop_oneof![Just(12), Just(14), Just(16)]) {
        let layout = Layout::new(&geometry).unwrap();
        let blocks = units(&geometry, 0x1000);
        let per_page = 1_usize << (shift - 12);
        // Whether a page shows nothing but whole pages of one section.
        let mappable = |section: usize| {
            let first = blocks.iter().position(|b| b.0 == section).unwrap();
            let count = blocks.iter().filter(|b| b.0 == section).count();
            first % per_page == 0 && count % per_page == 0
        };
        let pages = blocks.len() / per_page + 3;
        for start in 0..pages {
            for end in start..pages {
                let (first, last) = (start * per_page, end * per_page);
                let range = first as u64 * 0x1000..last as u64 * 0x1000;
                let shown = if first < last { blocks.get(first..last) } else { None };
                for writable in [false, true] {
                    let expected = match shown {
                        None => Err(Refused::Beyond),
                        Some(shown) if shown.iter().any(|b| !mappable(b.0)) => {
                            Err(Refused::NotMappable)
                        }
                        Some(shown) if writable
                            && shown.iter().any(|b| !b.1 || b.0 != shown[0].0) =>
                        {
                            Err(Refused::ReadOnly)
                        }
                        Some(_) => Ok(()),
                    };
                    let got = layout.map(range.clone(), writable, 1 << shift);
                    assert_eq!(got, expected, "{geometry:x?} {range:x?} {writable} {shift}");
                }
            }
        }
    }
}

#[test]
fn offsets_far_out_are_beyond() {
    let layout = Layout::new(&demo(2)).unwrap();
    for offset in [0x10000, 0x10001, i64::MAX as u64, 1 << 63, u64::MAX] {
        assert_eq!(layout.write(offset, 1), Err(Refused::Beyond));
        assert_eq!(layout.read(offset, u64::MAX), 0);
    }
    let last_page = !0xfff..u64::MAX;
    assert_eq!(layout.map(last_page, false, 0x1000), Err(Refused::Beyond));
    // The end of the region is the end of this peer's section.
    assert_eq!(layout.write(0xffff, 2), Ok(1));
    let beyond = 0xf000..0x11000;
    assert_eq!(layout.map(beyond, true, 0x1000), Err(Refused::Beyond));
}

/// Where they lie in one piece, a write goes on from the read/write into the own output section;
/// a writable mapping stays in one.
#[test]
fn peer_0_writes_across_its_two_sections() {
    let layout = Layout::new(&demo(0)).unwrap();
    assert_eq!(layout.write(0x9ffe, 0x10000), Ok(0x2002));
    let both = 0x9000..0xb000;
    assert_eq!(
        layout.map(both.clone(), true, 0x1000),
        Err(Refused::ReadOnly)
    );
    assert_eq!(layout.map(both, false, 0x1000), Ok(()));

    let layout = Layout::new(&demo(1)).unwrap();
    assert_eq!(layout.write(0x9ffe, 0x10000), Ok(2));
}

#[test]
fn what_would_stop_the_cell_on_jailhouse_is_refused() {
    let layout = Layout::new(&demo(1)).unwrap();
    for offset in [0, 4, 0xfff, 0xa000, 0xbfff, 0xe000, 0xffff] {
        assert_eq!(layout.write(offset, 4), Err(Refused::ReadOnly));
    }
    for range in [0..0x1000, 0..0x2000, 0xa000..0xc000, 0xb000..0xd000] {
        assert_eq!(layout.map(range, true, 0x1000), Err(Refused::ReadOnly));
    }
    assert_eq!(layout.map(0..0x10000, false, 0x1000), Ok(()));
    // With pages of 64 KiB the whole region is one page.
    for writable in [false, true] {
        assert_eq!(
            layout.map(0..0x10000, writable, 0x10000),
            Err(Refused::NotMappable)
        );
    }
}

/// The kernel rounds such a range to pages: it would show more than was asked for here.
#[test]
fn ranges_off_a_page_are_not_mappable() {
    let layout = Layout::new(&demo(1)).unwrap();
    for range in [0x1800..0x3000, 0x1000..0x1800, 0x1001..0x1002] {
        for writable in [false, true] {
            assert_eq!(
                layout.map(range.clone(), writable, 0x1000),
                Err(Refused::NotMappable)
            );
        }
    }
    assert_eq!(
        layout.map(0x1000..0x2000, false, 0),
        Err(Refused::NotMappable)
    );
    let backwards = Range {
        start: 0x2000,
        end: 0x1000,
    };
    assert_eq!(layout.map(backwards, false, 0x1000), Err(Refused::Beyond));
    assert_eq!(
        layout.map(0x1000..0x1000, false, 0x1000),
        Err(Refused::Beyond)
    );
}

/// Pages of 64 KiB: state table and read/write section share the first, the output sections have
/// their own.
#[test]
fn sections_behind_a_shared_page_are_mappable() {
    let layout = Layout::new(&Geometry {
        rw_size: 0xf000,
        output_size: 0x10000,
        ..demo(1)
    })
    .unwrap();
    let map = |range, writable| layout.map(range, writable, 0x10000);
    assert_eq!(map(0..0x10000, false), Err(Refused::NotMappable));
    assert_eq!(map(0..0x20000, false), Err(Refused::NotMappable));
    assert_eq!(map(0x10000..0x20000, false), Ok(()));
    assert_eq!(map(0x10000..0x40000, false), Ok(()));
    assert_eq!(map(0x20000..0x30000, true), Ok(()));
    assert_eq!(map(0x10000..0x20000, true), Err(Refused::ReadOnly));
}
