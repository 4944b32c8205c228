// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The files of `src/v2` are also part of the kernel module, which joins them by path: they may
//! name nothing that is not there.

use std::fs;
use std::path::Path;

#[test]
fn files_can_be_joined_to_the_kernel_module() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/v2");
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("// SPDX-License-Identifier: GPL-2.0 OR MIT\n"));
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for word in [
                "crate::",
                "ivshmem_protocol",
                "std::",
                "alloc::",
                "unsafe",
                "unwrap(",
            ] {
                assert!(
                    !code.contains(word),
                    "{}:{}: {word}",
                    path.display(),
                    number + 1
                );
            }
        }
        files += 1;
    }
    assert!(files >= 7);
}
