//! No parser without a fuzz target, and no target that is forgotten.

use crate::harness::{root, walk};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// What a corpus may weigh in the repository.
const MAX_FILES: usize = 40;
const MAX_BYTES: u64 = 200 * 1024;

#[test]
fn every_fuzz_target_is_run_described_and_has_a_small_corpus() {
    let targets = targets();
    assert!(targets.len() >= 17, "{targets:?}");
    let list = Command::new(root().join("tests/fuzz/run")).arg("--list").output().unwrap();
    let listed: BTreeSet<String> =
        String::from_utf8(list.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(listed, targets, "tests/fuzz/run does not run what stands in src/bin");
    let described = std::fs::read_to_string(root().join("tests/fuzz/README.md")).unwrap();
    for target in &targets {
        assert!(
            described.contains(&format!("| `{target}` |")),
            "{target} has no row in tests/fuzz/README.md"
        );
        let files = files(&format!("tests/fuzz/corpus/{target}"));
        assert!((1..=MAX_FILES).contains(&files.len()), "{target}: {} files in its corpus", files.len());
        let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
        assert!(bytes <= MAX_BYTES, "{target}: {bytes} bytes in its corpus; tests/fuzz/run --merge {target}");
    }
    for folder in std::fs::read_dir(root().join("tests/fuzz/corpus")).unwrap().flatten() {
        let name = folder.file_name().into_string().unwrap();
        assert!(targets.contains(&name), "a corpus without a target: {name}");
    }
}

/// A public function that takes bytes and is named like a reader is called in some target, by its module and name.
#[test]
fn every_parser_is_fuzzed() {
    let mut fuzzed = String::new();
    for file in files("tests/fuzz/src") {
        fuzzed.push_str(&std::fs::read_to_string(file).unwrap());
    }
    let mut found = 0;
    for room in ["certs/src", "protocols/apple/src", "protocols/windows/src", "protocols/scep/src"] {
        for file in files(room) {
            let text = std::fs::read_to_string(&file).unwrap();
            for name in text.split("\npub fn ").skip(1).filter_map(reader) {
                found += 1;
                // By the file's module or the one above, which may be where it is public; or imported.
                let names = file.ancestors().take(2).filter_map(|path| path.file_stem());
                let mut calls = names.map(|module| format!("{}::{name}(", module.to_string_lossy()));
                let called = calls.any(|call| fuzzed.contains(&call));
                let imported = name.contains('_') && fuzzed.contains(&format!("{name}("));
                assert!(called || imported, "{}: no fuzz target calls {name}", file.display());
            }
        }
    }
    assert!(found >= 20, "only {found} readers were found; has the way they are written changed?");
}

/// The name of a function, from what follows `pub fn `, if it reads bytes.
fn reader(rest: &str) -> Option<&str> {
    const VERBS: &[&str] = &[
        "parse",
        "read",
        "decode",
        "decrypt",
        "inspect",
        "verify",
        "strip",
        "guard",
        "pem_to",
        "to_definite",
    ];
    let (name, rest) = rest.split_once('(')?;
    let (arguments, _) = rest.split_once(") ->")?;
    (arguments.contains("&[u8]") && VERBS.iter().any(|verb| name.starts_with(verb))).then_some(name)
}

fn targets() -> BTreeSet<String> {
    let name = |file: &PathBuf| file.file_stem().unwrap().to_string_lossy().into_owned();
    files("tests/fuzz/src/bin").iter().map(name).collect()
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    walk(&root().join(folder), &mut files);
    files
}
