// SPDX-License-Identifier: MIT OR Apache-2.0

//! Malformed capabilities: each fault of the model is one that a driver refuses, with the reason
//! that names the field. The driver here is `ivshmem-protocol`, which the kernel module shares.

mod support;

use clap::ValueEnum;
use ivshmem_device::fault::Fault;
use ivshmem_device::fault::FaultSpec;
use ivshmem_device::spec::LinkOptions;
use ivshmem_device::spec::Shape;
use ivshmem_protocol::capability::VendorCapability;
use ivshmem_protocol::layout::Geometry;
use ivshmem_protocol::layout::Layout;
use ivshmem_protocol::layout::LayoutError;
use ivshmem_protocol::layout::Place;
use support::bench::*;

const ADDRESS: u64 = 0x1_0000_0000;
const REGISTERS: u64 = 0xfebf_1000;

/// Does what a driver does at probe.
fn probe(bench: &mut Bench, peer: u16) -> Result<Place, String> {
    let capability = VendorCapability::read(&bench.config(peer)).map_err(|e| e.to_string())?;
    let id = bench.get(peer, ID);
    let max_peers = bench.get(peer, MAX_PEERS);
    let bar_size = bench.link.spec().bar_sizes()[2];
    let place = || -> Result<Place, LayoutError> {
        let layout = Layout::new(&Geometry::new(id, max_peers, &capability))?;
        Place::find(&layout, bar_size, capability.base_address)
    };
    place().map_err(|error| error.to_string())
}

fn bench(shape: Shape, fault: Option<Fault>) -> Bench {
    let mut bench = Bench::empty(LinkOptions {
        shape,
        faults: fault
            .map(|fault| FaultSpec { fault, peer: 1 })
            .into_iter()
            .collect(),
        ..LinkOptions::default()
    });
    for peer in [0, 1] {
        bench.come(peer);
        let memory_bar = 0x10 + 4 * u64::from(bench.link.spec().memory_bar());
        let space = ivshmem_device::link::Space::Config;
        bench
            .link
            .write(peer, space, memory_bar, &ADDRESS.to_le_bytes());
        let registers = REGISTERS as u32;
        bench
            .link
            .write(peer, space, 0x10, &registers.to_le_bytes());
    }
    bench
}

#[test]
fn without_a_fault_both_peers_are_accepted() {
    for (shape, place) in [
        (Shape::Jailhouse, Place::Address(ADDRESS)),
        (Shape::Bar2, Place::Bar),
    ] {
        let mut bench = bench(shape, None);
        assert_eq!(probe(&mut bench, 0), Ok(place));
        assert_eq!(probe(&mut bench, 1), Ok(place));
    }
}

/// What a driver has to say to each fault.
fn reason(fault: Fault) -> &'static str {
    match fault {
        Fault::NoCapability => "no PCI capability with ID 0x09",
        Fault::ShortCapability => "length 0x10 is less than 0x18",
        Fault::CapabilityLoop => "loop",
        Fault::ZeroStateTable => "state table size 0x0",
        Fault::MisalignedStateTable => "state table size 0x1ffc is not divisible",
        Fault::MisalignedRw => "R/W section size 0x9008 is not divisible",
        Fault::MisalignedOutput => "output section size 0x2008 is not divisible",
        Fault::OverflowingRw => "R/W section size 0xfffffffffffff000",
        Fault::OverflowingOutput => "output section size 0x8000000000000000",
        Fault::BeyondBar => "reaches beyond BAR 2 of size 0x10000",
        Fault::NoAddress => "base address is missing",
        Fault::MisalignedAddress => "base address 0x100000800 is not divisible",
        Fault::OverflowingAddress => "base address 0xfffffffffffff000",
        Fault::AddressOfRegisters => unreachable!("only a system knows what else is at an address"),
        Fault::IdOutOfRange => "peer ID 2 is not below maximum peers 2",
        Fault::NoPeers => "maximum peers 0 ",
        Fault::OnePeer => "maximum peers 1 ",
        Fault::ManyPeers => "maximum peers 1000000 ",
        Fault::DeadRegisters => "registers read all-ones",
    }
}

#[test]
fn each_fault_is_refused_for_its_own_reason_and_the_other_peer_is_fine() {
    for &fault in Fault::value_variants() {
        for shape in [Shape::Jailhouse, Shape::Bar2] {
            if fault.needs_shape().is_some_and(|needed| needed != shape) {
                continue;
            }
            let mut bench = bench(shape, Some(fault));
            if fault == Fault::AddressOfRegisters {
                assert_eq!(probe(&mut bench, 1), Ok(Place::Address(REGISTERS)));
                continue;
            }
            let refused = probe(&mut bench, 1).expect_err("a fault is refused");
            assert!(refused.contains(reason(fault)), "{fault}: {refused}");
            assert!(probe(&mut bench, 0).is_ok(), "{fault}");
        }
    }
}

#[test]
fn a_fault_is_still_there_after_reset_and_for_the_next_client() {
    for &fault in Fault::value_variants() {
        let shape = fault.needs_shape().unwrap_or(Shape::Jailhouse);
        let mut bench = bench(shape, Some(fault));
        bench.link.reset(1);
        bench.link.detach(1);
        bench.come(1);
        assert_ne!(probe(&mut bench, 1), probe(&mut bench, 0), "{fault}");
    }
}

#[test]
fn a_link_without_msix_can_have_no_capability_at_all() {
    let mut bench = Bench::empty(LinkOptions {
        vectors: 0,
        faults: vec![FaultSpec {
            fault: Fault::NoCapability,
            peer: 0,
        }],
        ..LinkOptions::default()
    });
    assert_eq!(bench.config(0)[0x06], 0, "status has no list");
    assert!(probe(&mut bench, 0).is_err());
}
