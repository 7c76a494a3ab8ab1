//! The direction of dependencies, read from the sources: who may know whom.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The modules of the flow, and those of the crate that each may name. `app` and `cli` may name
/// all; what is missing here is an error.
const MAY_KNOW: [(&str, &[&str]); 22] = [
    ("session", &[]),
    ("sse", &[]),
    ("framing", &["sse"]),
    ("dialect", &["framing", "session"]),
    ("wire", &["session"]),
    ("random", &[]),
    ("json_pointer", &[]),
    ("redis_url", &[]),
    ("config", &["dialect", "framing", "redis_url", "session"]),
    ("auth", &["config", "server", "session"]),
    ("shutdown", &[]),
    ("telemetry", &["config", "dialect", "log", "session"]),
    ("log", &["random", "redis_url", "session"]),
    ("sharing", &["log", "random", "session"]),
    ("hub", &["dialect", "log", "session", "telemetry"]),
    ("run", &["dialect", "framing", "json_pointer", "log", "random", "server", "session", "sse", "telemetry"]),
    (
        "gateway",
        &[
            "auth",
            "config",
            "control",
            "dialect",
            "framing",
            "hub",
            "log",
            "random",
            "run",
            "server",
            "session",
            "sharing",
            "shutdown",
            "sse",
            "telemetry",
            "wire",
        ],
    ),
    (
        "control",
        &[
            "config",
            "dialect",
            "framing",
            "hub",
            "json_pointer",
            "log",
            "proxy",
            "random",
            "run",
            "server",
            "session",
            "telemetry",
            "wire",
        ],
    ),
    ("proxy", &["config", "framing", "json_pointer", "random", "server", "session", "telemetry", "wire"]),
    (
        "intercept",
        &[
            "config",
            "control",
            "dialect",
            "framing",
            "gateway",
            "json_pointer",
            "log",
            "proxy",
            "random",
            "run",
            "server",
            "session",
            "sse",
            "telemetry",
            "wire",
        ],
    ),
    ("server", &["gateway", "intercept", "proxy", "telemetry", "wire"]),
    ("admin", &["log", "run", "server", "session", "shutdown", "telemetry", "wire"]),
];

/// Crates that a sans-I/O module may name.
const SANS_IO: [&str; 10] =
    ["std", "bytes", "bytestring", "memchr", "serde", "serde_json", "thiserror", "toml", "crate", "super"];

/// What they may not name of `std`: whoever wants the time or a file gets it as an argument.
const FORBIDDEN_STD: [&str; 6] = ["std::net", "std::fs", "std::thread", "std::process", "SystemTime", "Instant"];

#[test]
fn modules_know_only_what_the_architecture_lets_them_know() {
    for (module, may_know) in MAY_KNOW {
        for (file, text) in sources(module) {
            let known = names_after(&text, "crate::");
            let strangers: Vec<_> =
                known.iter().filter(|name| *name != module && !may_know.contains(&name.as_str())).collect();
            assert!(strangers.is_empty(), "{} names crate::{strangers:?}", file.display());
        }
    }
}

#[test]
fn every_module_has_its_place_in_the_architecture() {
    for entry in std::fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let knows_all = ["app", "cli", "lib", "main"].contains(&module.as_str());
        assert!(knows_all || MAY_KNOW.iter().any(|(name, _)| *name == module), "src/{module} is in no row of MAY_KNOW");
    }
}

#[test]
fn the_protocol_code_does_no_io_and_asks_no_clock() {
    for module in ["session", "sse", "framing", "dialect", "wire"] {
        for (file, text) in sources(module) {
            let roots: BTreeSet<_> = text
                .lines()
                .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("use "))
                .map(|path| path.split([':', ';', ' ']).next().unwrap_or_default())
                .filter(|root| root.chars().next().is_some_and(char::is_lowercase))
                .collect();
            let named = |part: &Path, root: &str| part.file_stem().is_some_and(|stem| stem == root);
            let siblings = |root: &&str| {
                sources(module).iter().any(|(file, _)| file.ancestors().take(3).any(|part| named(part, root)))
            };
            let foreign: Vec<_> = roots.iter().filter(|root| !SANS_IO.contains(root) && !siblings(root)).collect();
            assert!(foreign.is_empty(), "{} uses {foreign:?}", file.display());
            for forbidden in FORBIDDEN_STD {
                assert!(!text.contains(forbidden), "{} names {forbidden}", file.display());
            }
        }
    }
}

#[test]
fn every_test_that_the_known_failures_name_exists() {
    let page = include_str!("../docs/known-failures.md");
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), &mut files);
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #")).collect();
    for (row, number) in rows.iter().zip(1..) {
        let columns: Vec<&str> = row.split(" | ").collect();
        assert_eq!((columns.len(), columns[0]), (4, format!("| {number}").as_str()), "{row}");
        let shown_by = columns[3].trim_end_matches(" |");
        if shown_by.starts_with("none yet: ") {
            continue;
        }
        for name in shown_by.split_whitespace() {
            let (module, test) = name.trim_matches('`').split_once("::").unwrap_or_else(|| panic!("{number}: {name}"));
            let exists = files.iter().filter(|file| file.file_stem().unwrap() == module).any(|file| {
                let text = std::fs::read_to_string(file).unwrap();
                text.contains(&format!("fn {test}("))
            });
            assert!(exists, "{number}: there is no test {module}::{test}");
        }
    }
    assert_eq!(rows.len(), 34);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The module's files with their text, without unit tests (which stand last) and comments.
fn sources(module: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let single = root().join(format!("{module}.rs"));
    if single.exists() {
        files.push(single)
    } else {
        collect(&root().join(module), &mut files)
    }
    let code = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    };
    files.into_iter().map(|file| (file.clone(), code(&file))).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().unwrap() != "tests" {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The identifiers that follow `prefix` in the text.
fn names_after(text: &str, prefix: &str) -> BTreeSet<String> {
    text.match_indices(prefix)
        .map(|(at, _)| text[at + prefix.len()..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .filter(|name: &String| !name.is_empty())
        .collect()
}
