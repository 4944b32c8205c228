// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What Documentation/channel-protocol.md says in numbers is what the core does.

mod channel_ends;

use channel_ends::document::{document, rows, section as part};
use channel_ends::{config, section, Counted};
use ivshmem_protocol::channel::layout::{block, header, Section};
use ivshmem_protocol::channel::session::{claim, Session};
use ivshmem_protocol::channel::transfer::Next;
use std::collections::BTreeSet;
use std::path::Path;

const NAME: &str = "channel-protocol.md";

/// Names and offsets in the table below a heading.
fn fields(heading: &str) -> Vec<(String, usize)> {
    let text = document(NAME);
    let named = rows(&text, heading).filter_map(|row| {
        let name = row[1].strip_prefix('`')?.strip_suffix('`')?;
        Some((name.to_owned(), row[0].parse().expect("an offset")))
    });
    named.collect()
}

#[test]
fn the_offsets_are_those_of_the_core() {
    let core = [
        ("magic", header::MAGIC),
        ("version", header::VERSION),
        ("max_peers", header::MAX_PEERS),
        ("ports", header::PORTS),
    ];
    assert_eq!(
        fields("Section header"),
        core.map(|(name, at)| (name.to_owned(), at))
    );
    let core = [
        ("epoch", block::EPOCH),
        ("echo", block::ECHO),
        ("features", block::FEATURES),
        ("accepted", block::ACCEPTED),
        ("vector", block::VECTOR),
        ("ring_offset", block::RING_OFFSET),
        ("ring_size", block::RING_SIZE),
        ("fin", block::FIN),
        ("written", block::WRITTEN),
        ("consumed", block::CONSUMED),
        ("confirmed", block::CONFIRMED),
        ("data_event", block::DATA_EVENT),
        ("room_event", block::ROOM_EVENT),
        ("confirm_event", block::CONFIRM_EVENT),
        ("last_epoch", block::LAST_EPOCH),
    ];
    assert_eq!(
        fields("Block"),
        core.map(|(name, at)| (name.to_owned(), at))
    );
}

#[test]
fn the_largest_messages_are_those_of_the_core() {
    let text = document(NAME);
    let mut seen = 0;
    for row in rows(&text, "Ring") {
        let (size, unit) = row[0].split_once(' ').expect("a size and its unit");
        let unit = if unit == "MiB" { 1 << 20 } else { 1 << 10 };
        let size = size.parse::<u32>().expect("a number") * unit;
        for (cell, max_peers) in row[1..].iter().zip([2, 3, 4, 8]) {
            let said: u32 = cell.replace(',', "").parse().expect("a number");
            let whole = Section {
                offset: 0,
                size,
                max_peers,
            };
            for peer in 1..max_peers {
                let ring = whole.share(0, peer).expect("a ring");
                assert_eq!(
                    ring.largest_message(),
                    said,
                    "{size} bytes, {max_peers} peers"
                );
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 4 * (1 + 2 + 3 + 7));
}

/// The bytes of a dump: lines of an offset and 16 bytes; lines that are left out are 0.
fn dumped(text: &str, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(Ok(at)) = words.next().map(|at| usize::from_str_radix(at, 16)) else {
            continue;
        };
        for (number, byte) in words.enumerate() {
            bytes[at + number] = u8::from_str_radix(byte, 16).expect("a byte");
        }
    }
    bytes
}

/// As the document has it, to be pasted there.
fn dump(bytes: &[u8]) -> String {
    let lines = bytes
        .chunks(16)
        .enumerate()
        .filter(|(_, line)| line.iter().any(|byte| *byte != 0));
    let line = |(number, line): (usize, &[u8])| {
        let words = line.chunks(4).map(|word| {
            let bytes: Vec<_> = word.iter().map(|byte| format!("{byte:02x}")).collect();
            bytes.join(" ")
        });
        format!(
            "{:04x}  {}\n",
            number * 16,
            words.collect::<Vec<_>>().join("  ")
        )
    };
    lines.map(line).collect()
}

#[test]
fn the_example_is_what_the_core_does() {
    const SIZE: u32 = 256;
    let memory = Counted::new(2 * SIZE as usize);
    let at = |end: u16, field| section(end, SIZE, 2).block(1 - end).expect("a block") + field;
    memory.set(at(0, block::LAST_EPOCH), 0x16);
    memory.set(at(1, block::LAST_EPOCH), 0x40);
    let start = |own: u16| {
        claim(&memory, section(own, SIZE, 2)).expect("there");
        Session::start(&memory, &config(own, 1 - own, SIZE, 2)).expect("starts")
    };
    let mut left = start(0);
    assert_eq!(left.look(&memory), Ok(false), "step 2: nobody is there");
    let mut right = start(1);
    assert_eq!(right.look(&memory), Ok(true), "step 3");
    assert!(!right.is_up());
    assert_eq!(left.look(&memory), Ok(true), "step 4");
    assert!(left.is_up());
    assert_eq!(right.look(&memory), Ok(false), "step 5");
    assert!(right.is_up());
    assert_eq!(right.await_data(&memory), Ok(false), "step 5");
    let slot = left.reserve(&memory, 3).expect("room");
    memory.write(&slot.pieces, b"Hi!");
    assert_eq!(left.commit(&memory, slot), Ok(true), "step 6");

    let text = document(NAME);
    let mut said = part(&text, "Example").split("```").skip(1).step_by(2);
    let mut compare = |sections: &[u16]| {
        for number in sections {
            let bytes = memory.bytes();
            let own = &bytes[*number as usize * SIZE as usize..][..SIZE as usize];
            let said = said.next().expect("a dump");
            assert_eq!(
                dumped(said, SIZE as usize),
                own,
                "section of peer {number} is\n{}",
                dump(own)
            );
        }
    };
    compare(&[0, 1]);
    let Ok(Next::Message(message)) = right.next(&memory) else {
        panic!("step 7: a message");
    };
    assert_eq!(memory.read(&message.pieces), b"Hi!");
    assert_eq!(
        right.take_and_confirm(&memory, message),
        Ok(false),
        "step 7"
    );
    compare(&[1]);
    assert_eq!(left.confirmations(&memory), Ok(1), "step 8");
}

#[test]
fn the_tests_that_are_named_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut functions = BTreeSet::new();
    for entry in std::fs::read_dir(root).expect("there are tests") {
        let path = entry.expect("a file").path();
        let Some(file) = path.file_stem().filter(|_| path.is_file()) else {
            continue;
        };
        let source = std::fs::read_to_string(&path).expect("it can be read");
        for function in source.split("\nfn ").chain(source.split("    fn ")).skip(1) {
            let name = function.split(['(', '<']).next().unwrap_or_default();
            functions.insert(format!("{}::{name}", file.to_string_lossy()));
        }
    }
    let text = document(NAME);
    let properties = part(&text, "Properties");
    let named: Vec<_> = properties
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| code.contains("::"))
        .collect();
    for name in &named {
        assert!(functions.contains(*name), "there is no test {name}");
    }
    assert!(named.len() >= 20, "{named:?}");
}
