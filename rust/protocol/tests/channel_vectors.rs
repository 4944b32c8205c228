// SPDX-License-Identifier: GPL-2.0 OR MIT

//! On which vector a peer is rung for which channel.

use ivshmem_protocol::channel::layout::vector_for;
use std::collections::BTreeMap;

/// How many peers ring `own` on which vector.
fn shared(own: u16, peers: u16, vectors: u16) -> BTreeMap<u16, u16> {
    let mut shared = BTreeMap::new();
    for peer in (0..peers).filter(|&peer| peer != own) {
        let vector = vector_for(own, peer, vectors).expect("there are vectors");
        assert!(
            vector < vectors,
            "peer {peer} of {peers}, {vectors} vectors"
        );
        *shared.entry(vector).or_default() += 1;
    }
    shared
}

#[test]
fn no_two_peers_share_a_vector_while_another_is_unused() {
    for peers in 2..12 {
        for vectors in 2..14 {
            for own in 0..peers {
                let shared = shared(own, peers, vectors);
                let most = (peers - 1).div_ceil(vectors - 1);
                let used = (peers - 1).min(vectors - 1);
                assert_eq!(shared.len(), usize::from(used));
                assert!(shared.values().all(|&count| count <= most), "{shared:?}");
                assert!(!shared.contains_key(&0), "changes of state come there");
            }
        }
    }
}

#[test]
fn one_vector_is_for_all_and_none_for_nobody() {
    for (own, peer) in [(0, 1), (1, 0), (3, 7), (u16::MAX, 0)] {
        assert_eq!(vector_for(own, peer, 1), Some(0));
        assert_eq!(vector_for(own, peer, 0), None);
        assert_eq!(vector_for(own, peer, 2), Some(1));
    }
    assert_eq!(vector_for(0, u16::MAX, u16::MAX), Some(1));
}
