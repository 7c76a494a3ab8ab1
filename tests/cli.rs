//! What the command line promises, asked of the real binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::process::{Command, Output};

/// The binary, in an environment of its own.
fn sidestream(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidestream"));
    command.args(arguments).env_clear().env("HOME", "/home/nobody");
    command
}

fn run(arguments: &[&str]) -> Output {
    sidestream(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(stdout(output), "", "what is refused is said on standard error alone");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
}

const UPSTREAM: [&str; 2] = ["--upstream", "http://127.0.0.1:8000"];

#[test]
fn help_names_every_flag_the_commands_and_an_example() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = stdout(&output);
    for word in [
        "--upstream <URL>",
        "--listen <ADDR:PORT>",
        "--health-listen",
        "--admin-listen",
        "--store",
        "--config <FILE>",
        "--auth",
        "--allow-open",
        "--demo",
        "check-config",
        "default-config",
        "completions",
        "SIDESTREAM_UPSTREAM",
        "Examples:",
        "Exit codes:",
    ] {
        assert!(help.contains(word), "`{word}` is not in:\n{help}");
    }
}

#[test]
fn the_version_is_the_manifests() {
    assert_eq!(stdout(&run(&["--version"])).trim(), format!("sidestream {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_misspelled_flag_is_exit_2_and_told_its_neighbour() {
    assert_refused(&run(&["--upstrem", "http://a:1"]), 2, &["--upstream"]);
}

#[test]
fn serving_without_an_upstream_is_exit_2_and_names_the_flag() {
    for arguments in [&[] as &[&str], &["serve"]] {
        assert_refused(&run(arguments), 2, &["--upstream"]);
    }
}

#[test]
fn an_address_that_others_reach_is_refused_and_both_flags_are_named() {
    for flag in ["--listen", "--admin-listen"] {
        let arguments = [&UPSTREAM[..], &[flag, "0.0.0.0:0"]].concat();
        assert_refused(&run(&arguments), 2, &["--auth", "--allow-open", "0.0.0.0:0"]);
    }
}

#[test]
fn an_open_address_that_was_accepted_is_a_warning() {
    let arguments = [&["check-config"], &UPSTREAM[..], &["--listen", "0.0.0.0:0", "--allow-open"]].concat();
    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("warning: OPEN: the data listener 0.0.0.0:0"), "{}", stdout(&output));
}

#[test]
fn a_later_way_to_authenticate_is_refused_as_such() {
    let arguments = [&UPSTREAM[..], &["--auth", "jwt"]].concat();
    assert_refused(&run(&arguments), 2, &["--auth", "later version", "`none`"]);
}

#[test]
fn check_config_shows_what_is_in_effect_and_no_password() {
    let mut command = sidestream(&["check-config"]);
    let output = command
        .env("SIDESTREAM_UPSTREAM", "http://127.0.0.1:8000")
        .env("SIDESTREAM_STORE", "redis://user:s3cret@127.0.0.1:6379/1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert!(text.contains("redis://***@127.0.0.1:6379/1") && text.contains("# SIDESTREAM_STORE"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
}

#[test]
fn check_config_tells_every_problem_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sidestream.toml");
    std::fs::write(&file, "lisen = \"127.0.0.1:1\"\n\n[upstream]\nurl = \"127.0.0.1:8000\"\nconnect_timeout = 5\n")
        .unwrap();
    let output = run(&["check-config", "--config", file.to_str().unwrap()]);
    let problems = [
        "sidestream.toml:1: unknown key `lisen`; did you mean `listen`?",
        "toml:4:",
        "http://HOST:PORT",
        "toml:5:",
        "\"5s\"",
    ];
    assert_refused(&output, 2, &problems);
}

#[test]
fn a_store_that_is_wrong_is_refused_without_repeating_its_password() {
    for store in
        ["postgres://u:s3cret@h", "redis://u:s3cret@", "redis-cluster://:s3cret@h/7", "redis-sentinel://:s3cret@h"]
    {
        let output = run(&[&UPSTREAM[..], &["--store", store]].concat());
        assert_refused(&output, 2, &["--store"]);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("s3cret"), "{store}");
    }
}

#[test]
fn options_of_a_store_that_contradict_each_other_are_refused_with_both_names() {
    for (store, variables, names) in [
        ("redis://u:s3cret@h", &[("PASSWORD", "env:STORE_PASSWORD")][..], ["store.url", "store.password"]),
        ("redis://h", &[("CERT_FILE", "Cargo.toml"), ("KEY_FILE", "Cargo.toml")], ["store.cert_file", "rediss://"]),
        ("rediss://h", &[("CERT_FILE", "Cargo.toml")], ["store.cert_file", "store.key_file"]),
        ("redis://h", &[("SENTINEL_PASSWORD", "env:STORE_PASSWORD")], ["store.sentinel_password", "redis-sentinel://"]),
        ("memory:", &[("ACK", "replicated")], ["store.ack", "store.url"]),
        ("redis://h", &[("PASSWORD", "s3cret")], ["STORE__PASSWORD", "env:NAME"]),
    ] {
        let mut command = sidestream(&[&UPSTREAM[..], &["--store", store]].concat());
        command.env("STORE_PASSWORD", "s3cret");
        command.envs(variables.iter().map(|(name, value)| (format!("SIDESTREAM_STORE__{name}"), value)));
        let output = command.output().unwrap();
        assert_refused(&output, 2, &names);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("s3cret"), "{store}");
    }
}

#[test]
fn the_default_file_is_a_configuration_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sidestream.toml");
    let printed = run(&["default-config"]);
    assert_eq!(printed.status.code(), Some(0));
    std::fs::write(&file, &printed.stdout).unwrap();

    let values = |arguments: &[&str]| {
        let output = run(&[&["check-config"], &UPSTREAM[..], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = stdout(&output);
        lines.lines().map(|line| line.split("  # ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(values(&["--config", file.to_str().unwrap()]), values(&[]));
}

#[test]
fn completions_are_printed_for_common_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("health-listen"), "{shell}");
    }
    assert_refused(&run(&["completions", "cmd.exe"]), 2, &["bash"]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    use std::process::Stdio;
    let mut child = sidestream(&["default-config"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn the_page_of_options_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let page = sidestream::config::page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page, "docs/configuration.md is out of date: UPDATE_DOCS=1 cargo test --test cli");
}

#[test]
fn the_dialects_are_listed_and_each_is_described_as_a_custom_one_would_be() {
    let list = stdout(&run(&["dialects"]));
    let names: Vec<&str> = list.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert!(names.len() >= 22 && list.lines().all(|line| line.split_whitespace().count() > 2), "{list}");
    let page = include_str!("../docs/dialects.md");
    for name in names {
        assert!(page.contains(&format!("| `{name}` |")), "docs/dialects.md lacks {name}");
        // What is printed is what a file may have.
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), stdout(&run(&["dialects", name]))).unwrap();
        let arguments = ["check-config", "--config", file.path().to_str().unwrap(), UPSTREAM[0], UPSTREAM[1]];
        let checked = run(&arguments);
        assert_eq!(checked.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&checked.stderr));
    }
    assert_refused(&run(&["dialects", "latin"]), 2, &["latin", "openai-chat"]);
}

#[test]
fn a_dialect_that_means_nothing_is_refused_with_its_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[[dialect]]\nname = \"own\"\nend = [{ at = \"type\" }]\n").unwrap();
    let arguments = ["check-config", "--config", file.path().to_str().unwrap(), UPSTREAM[0], UPSTREAM[1]];
    assert_refused(&run(&arguments), 2, &[":3: [[dialect]]", "/key/0/key"]);
    let twice = "[[dialect]]\nname = \"own\"\n[[dialect]]\nname = \"own\"\n[[route]]\nmatch = \"POST /a\"\ndialect = \"latin\"\n";
    std::fs::write(file.path(), twice).unwrap();
    assert_refused(
        &run(&arguments),
        2,
        &[":3: [[dialect]] `own` is described twice", ":7: [[route]] `dialect`", "`latin`"],
    );
}

fn warnings(arguments: &[&str]) -> Vec<String> {
    let checked = run(&[&["check-config"], arguments, &UPSTREAM[..]].concat());
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stderr));
    stdout(&checked).lines().filter(|line| line.starts_with("warning: ")).map(str::to_owned).collect()
}

#[test]
fn check_config_warns_of_what_has_no_effect() {
    let text = r#"preset = ["ai-sdk", "ollama", "ollama"]
[[dialect]]
name = "cohere"
[[route]]
match = "POST /a"
grace = "1s"
dialect = ["openai-chat", "gemini"]
[[route]]
match = "POST /b"
preset = "ollama"
base = "/c"
[[route]]
match = "* /d/*"
[[route]]
match = "POST /d/{x}"
"#;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap();
    let told = warnings(&["--config", path]);
    let expected: [(usize, &[&str]); 7] = [
        (2, &["`cohere`", "built-in"]),
        (4, &["`grace`", "on_disconnect"]),
        (4, &["`gemini`", "`openai-chat`"]),
        (11, &["`base`"]),
        (14, &["`POST /d/{x}`", "`* /d/*`"]),
        (1, &["`POST /api/chat` of the preset `ollama`", "`ai-sdk`"]),
        (1, &["`POST /api/generate` of the preset `ollama`", "the preset `ollama` stands before"]),
    ];
    for (line, words) in expected {
        let place = format!("warning: {path}:{line}: ");
        let said = |told: &String| told.starts_with(&place) && words.iter().all(|word| told.contains(word));
        assert_eq!(told.iter().filter(|told| said(told)).count(), 1, "{line} {words:?} in {told:#?}");
    }
    assert_eq!(told.len(), expected.len(), "{told:#?}");
}

#[test]
fn what_is_meant_so_is_no_warning() {
    for preset in stdout(&run(&["presets"])).lines().map(|line| line.split(' ').next().unwrap()) {
        assert_eq!(warnings(&["--preset", preset]), [""; 0], "{preset}");
    }
    // A route of one's own before the preset's is how that is changed; below another path its `resume` is served.
    let text = r#"preset = "openai"
[[route]]
match = "POST /v1/chat/completions"
session = ["json:/metadata/chat"]
[[route]]
match = "POST /ask"
preset = "ai-sdk"
base = "/chats"
[[route]]
match = "POST /t/{id}"
on_disconnect = "cancel"
grace = "5s"
[[route]]
match = "POST /t/{id}/stream"
dialect = ["gemini", "gemini-array"]
"#;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    assert_eq!(warnings(&["--config", file.path().to_str().unwrap()]), [""; 0]);
}

#[test]
fn the_page_of_presets_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/presets.md");
    let page = sidestream::config::presets_page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page, "docs/presets.md is out of date: UPDATE_DOCS=1 cargo test --test cli");
}

#[test]
fn presets_are_listed_and_shown_to_copy_and_a_preset_needs_no_file() {
    let listed = stdout(&run(&["presets"]));
    for name in [
        "openai",
        "anthropic",
        "ai-sdk",
        "ag-ui",
        "langgraph",
        "gemini",
        "mcp",
        "a2a",
        "dify",
        "flowise",
        "ollama",
        "generic",
    ] {
        assert!(listed.lines().any(|line| line.starts_with(&format!("{name} "))), "{name} is not in:\n{listed}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sidestream.toml");
    let shown = run(&["presets", "ai-sdk", "--base", "/api/my-chat"]);
    assert!(stdout(&shown).contains("resume = [\"GET /api/my-chat/{session}/stream\"]"), "{}", stdout(&shown));
    std::fs::write(&file, &shown.stdout).unwrap();
    let copied = run(&[&["check-config", "--config", file.to_str().unwrap()], &UPSTREAM[..]].concat());
    assert!(stdout(&copied).contains("POST /api/my-chat"), "{}", String::from_utf8_lossy(&copied.stderr));
    let listed = run(&[&["check-config", "--preset", "mcp"], &UPSTREAM[..]].concat());
    assert!(stdout(&listed).contains("header:mcp-method"), "{}", String::from_utf8_lossy(&listed.stderr));
    assert_refused(&run(&[&UPSTREAM[..], &["--preset", "gpt"]].concat()), 2, &["--preset", "`gpt`", "ai-sdk"]);
    assert_refused(&run(&["presets", "gpt"]), 2, &["gpt", "ai-sdk"]);
    for base in ["v1", "/v1/"] {
        assert_refused(&run(&["presets", "openai", "--base", base]), 2, &["--base", base, "final slash"]);
    }
}
