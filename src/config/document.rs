//! The options as text: the complete file (`default-config`), the page `docs/configuration.md`, and
//! the summary of `check-config`. All from the tables of `options`.

use std::fmt::Write;

use super::load::Loaded;
use super::options::{OPTIONS, Opt, ROUTE_OPTIONS, SECTIONS};
use super::problem::Origin;
use super::route_settings::Route;
use super::settings::Config;

/// A complete configuration file: every option with its doc line and default. It reads back as the
/// defaults; options without a default stand as comments, with an example.
pub fn default_file() -> String {
    let defaults = defaults();
    let mut text = String::from(
        "# Sidestream: every option with its default. Keep what you change, delete the rest.\n\
         # Flags beat SIDESTREAM_… variables beat this file beats the defaults.\n",
    );
    for section in SECTIONS {
        let _ = write!(text, "\n\n{}", comment(section.doc));
        if !section.name.is_empty() {
            let _ = writeln!(text, "[{}]", section.name);
        }
        for option in OPTIONS.iter().filter(|option| option.section() == section.name) {
            let _ = write!(text, "\n{}", comment(option.doc));
            text.push_str(&entry(option, &defaults, ""));
        }
    }
    text.push_str(
        "\n\n# Rules for some requests. The first route that matches wins; write as many as you need.\n# [[route]]\n",
    );
    for option in ROUTE_OPTIONS {
        let _ = write!(text, "#\n{}", comment(option.doc));
        text.push_str(&entry(option, &Route::unnamed(), "# "));
    }
    text
}

/// The page `docs/configuration.md`.
pub fn page() -> String {
    let defaults = defaults();
    let mut text = String::from(
        "# Configuration\n\n\
         <!-- Written by `UPDATE_DOCS=1 cargo test --test cli` from src/config/options.rs; do not edit. -->\n\n\
         Sources, the first wins: flags, `SIDESTREAM_…` variables, the file (`--config FILE` or `SIDESTREAM_CONFIG`, TOML), defaults.\n\
         The configuration is read once and checked before a port opens: `sidestream check-config` does only that, and\n\
         `sidestream default-config` prints a complete file to begin with. An unknown key is an error.\n\n\
         - Every option has a variable: `SIDESTREAM_` and its path, levels joined by `__` (`SIDESTREAM_STORE__MAX_BYTES=8MiB`).\n  \
         Lists are separated by commas. An empty variable counts as none.\n\
         - Durations carry a unit (`250ms`, `5s`, `15m`, `24h`), sizes as well (`256KiB`, `16MiB`, `2GiB`).\n\
         - `SIDESTREAM_DATA_DIR` is where the embedded store lives when no store is named.\n",
    );
    for section in SECTIONS {
        let title =
            if section.name.is_empty() { "The top of the file".into() } else { format!("`[{}]`", section.name) };
        let _ = write!(text, "\n## {title}\n\n{}\n\n", section.doc);
        text.push_str("| option | form | default | meaning | also |\n|---|---|---|---|---|\n");
        for option in OPTIONS.iter().filter(|option| option.section() == section.name) {
            let flag = option.flag.map(|flag| format!("`--{flag}`, ")).unwrap_or_default();
            let also = format!("{flag}`{}`", option.variable());
            text.push_str(&row(option, &defaults, &also));
        }
    }
    text.push_str(
        "\n## `[[route]]`\n\nRules for some requests, in the file only. The first route that matches wins.\n\n",
    );
    text.push_str("| option | form | default | meaning |\n|---|---|---|---|\n");
    for option in ROUTE_OPTIONS {
        text.push_str(&row(option, &Route::unnamed(), ""));
    }
    text.push_str(
        "\n```toml\n[[route]]\nmatch = \"POST /api/chat\"\nsession = [\"json:/thread_id\", \"cookie:sid\"]\n\
         input = \"json:/message\"\n```\n",
    );
    text
}

/// The values in effect, each with where it was written; without secrets.
pub fn summary(loaded: &Loaded) -> String {
    let width = OPTIONS.iter().map(|option| option.path.len()).max().unwrap_or_default();
    let mut text = String::new();
    for option in OPTIONS {
        let origin = loaded.origins.get(option.path).unwrap_or(&Origin::Default);
        let _ = writeln!(text, "{:width$} = {}  # {origin}", option.path, option.show(&loaded.config));
    }
    for route in &loaded.config.routes {
        text.push_str("\n[[route]]\n");
        for option in ROUTE_OPTIONS {
            let _ = writeln!(text, "{:width$} = {}", option.path, option.show(route));
        }
    }
    text
}

fn defaults() -> Config {
    // Only for showing: the one option without a default has an example in its place.
    Config::new(http::Uri::from_static("http://127.0.0.1:8000"))
}

/// `key = value`, as a comment where there is no default.
fn entry<C>(option: &Opt<C>, defaults: &C, prefix: &str) -> String {
    match option.example {
        Some(example) => format!("# {} = {example}\n", option.key()),
        None => format!("{prefix}{} = {}\n", option.key(), option.show(defaults)),
    }
}

/// A row of a Markdown table.
fn row<C>(option: &Opt<C>, defaults: &C, also: &str) -> String {
    let default = match option.example {
        Some(_) => "—".into(),
        None => format!("`{}`", option.show(defaults)),
    };
    let form = option.form.replace('|', "\\|");
    let also = if also.is_empty() { String::new() } else { format!(" {also} |") };
    let doc = option.doc.replace('|', "\\|").replace('<', "&lt;");
    format!("| `{}` | {form} | {default} | {doc} |{also}\n", option.path)
}

/// `text` as comment lines of at most 100 columns.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        let width = word.chars().count() + 1;
        if column == 0 || column + width > 100 {
            lines.push_str(if column == 0 { "#" } else { "\n#" });
            column = 1;
        }
        lines.push(' ');
        lines.push_str(word);
        column += width;
    }
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn load_text(text: &str) -> Loaded {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let environment = vec![("HOME".into(), "/home/a".into())];
        let flags = vec![("upstream.url", "http://127.0.0.1:8000".into())];
        load(&Sources { flags, environment, file: Some(file.path().into()) }).unwrap()
    }

    #[test]
    fn the_default_file_reads_back_as_the_defaults() {
        let (read, nothing) = (load_text(&default_file()), load_text(""));
        assert_eq!(format!("{:?}", read.config), format!("{:?}", nothing.config));
    }

    #[test]
    fn the_default_file_holds_every_option_and_every_doc_line() {
        let text = default_file();
        let read = load_text(&text);
        for option in OPTIONS {
            let active = read.origins.contains_key(option.path);
            assert!(active || option.example.is_some(), "{}", option.path);
            assert!(text.contains(&comment(option.doc)), "{}", option.path);
        }
    }

    #[test]
    fn the_commented_parts_of_the_default_file_are_correct_as_well() {
        let text = default_file();
        let (_, routes) = text.split_once("# [[route]]").unwrap();
        // What a `credential` names is there on the operator's machine alone.
        let route = routes.lines().filter_map(|line| line.strip_prefix("# ")).filter(|line| {
            !line.starts_with("credential")
                && line.split_once(" = ").is_some_and(|(key, _)| ROUTE_OPTIONS.iter().any(|option| option.path == key))
        });
        let text = format!("[[route]]\n{}", route.collect::<Vec<_>>().join("\n"));
        assert_eq!(load_text(&text).config.routes.len(), 1, "{text}");
        for option in OPTIONS.iter().filter(|option| option.example.is_some()) {
            let text = format!("{} = {}", option.path, option.example.unwrap());
            assert!(toml::from_str::<toml::Table>(&text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_summary_shows_where_a_value_comes_from_and_no_password() {
        let text = summary(&load_text("[store]\nurl = \"redis://u:s3cret@h\"\n"));
        assert!(!text.contains("s3cret"), "{text}");
        let line = text.lines().find(|line| line.starts_with("store.url")).unwrap();
        assert!(line.contains("redis://***@h") && line.ends_with(":2"), "{line}");
        assert!(text.contains("# default"));
    }
}
