// SPDX-License-Identifier: MIT OR Apache-2.0
//! What two guests need for the things that channels are compared with: TCP over virtio-net, and a
//! virtio-serial port of each whose other end is the other's.

use crate::initramfs::Initramfs;
use crate::kernel::{Flavour, Kernel};
use anyhow::{bail, Context, Result};
use std::fs::File;
use std::path::Path;
use std::process::Command;

/// Drivers that Debian's kernel does not have built in.
const DRIVERS: [&str; 3] = ["failover", "net_failover", "virtio_net"];

/// Adds the drivers, and busybox for setting up the network.
pub(super) fn files(kernel: &Kernel, folder: &Path, archive: Initramfs) -> Result<Initramfs> {
    let mut archive = archive.file(&kernel.busybox, "bin/busybox", 0o755);
    if kernel.flavour == Flavour::Debug {
        return Ok(archive);
    }
    for name in DRIVERS {
        let packed = kernel.drivers.join(format!("{name}.ko.xz"));
        if !packed.exists() {
            let name = kernel.flavour.name();
            bail!(
                "{} is missing: `scripts/kernel drivers {name}` gets it",
                packed.display()
            );
        }
        let unpacked = folder.join(format!("{name}.ko"));
        let status = Command::new("xz")
            .arg("-dc")
            .arg(&packed)
            .stdout(File::create(&unpacked)?)
            .status()
            .context("cannot run xz")?;
        if !status.success() {
            bail!("xz cannot unpack {}", packed.display());
        }
        archive = archive.file(&unpacked, &format!("{name}.ko"), 0o644);
    }
    Ok(archive)
}

/// Options for QEMU: peer 0 listens, peer 1 connects.
pub(super) fn options(peer: u32, sockets: &Path) -> Vec<String> {
    let socket = |name: &str| sockets.join(name).display().to_string();
    let (own, other) = (
        socket(&format!("net{peer}")),
        socket(&format!("net{}", 1 - peer)),
    );
    let role = if peer == 0 {
        "server=on,wait=off"
    } else {
        "reconnect-ms=100"
    };
    [
        "-netdev".into(),
        format!(
            "dgram,id=net,local.type=unix,local.path={own},remote.type=unix,remote.path={other}"
        ),
        "-device".into(),
        format!("virtio-net-pci,netdev=net,mac=52:54:00:00:00:0{peer},romfile="),
        "-chardev".into(),
        format!("socket,id=serial,path={},{role}", socket("serial")),
        "-device".into(),
        "virtio-serial-pci".into(),
        "-device".into(),
        "virtserialport,chardev=serial,name=ivshmem.bench".into(),
    ]
    .into()
}
