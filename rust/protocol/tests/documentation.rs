// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `Documentation/protocol.md` points to items of this crate: each of them exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What stands between backticks, outside of blocks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split("```")
        .step_by(2)
        .flat_map(|prose| prose.split('`').skip(1).step_by(2))
}

#[test]
fn items_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("../../Documentation/protocol.md")).unwrap();
    let mut items = BTreeSet::new();
    for path in code(&text).filter(|code| code.contains("::")) {
        let mut names = path.split("::");
        let module = names.next().unwrap();
        let file = root.join(format!("src/v2/{module}.rs"));
        let source = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{path}: {e}"));
        for name in names {
            let declared = ["const", "fn", "const fn", "struct", "enum", "trait"]
                .iter()
                .any(|kind| {
                    source
                        .split(&format!("pub {kind} {name}"))
                        .skip(1)
                        .any(|rest| rest.starts_with(|c: char| !c.is_alphanumeric() && c != '_'))
                });
            assert!(declared, "{path}: no {name} in {}", file.display());
        }
        items.insert(path);
    }
    assert!(items.len() > 30, "{items:?}");
}
