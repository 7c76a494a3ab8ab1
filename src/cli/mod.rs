//! The command line: what was asked for, and how the process says that it was refused. Flags and
//! their help come from the table of options; this module knows no option by itself. It starts
//! nothing and opens no port.

mod exit;

use std::ffi::OsString;
use std::io::Write;

use clap::builder::{PossibleValuesParser, StyledStr};
use clap::{Arg, ArgAction, ArgMatches, value_parser};
use clap_complete::Shell;

use crate::config::{self, Config, Loaded, OPTIONS, Opt, Problems, Sources};

use crate::dialect::builtin;

pub use exit::Exit;

/// What the operator asks for.
#[derive(Debug)]
pub enum Command {
    /// Run the sidecar with this configuration, which has been checked.
    Serve(Box<Config>),
    /// The configuration is fine: print this summary of it.
    CheckConfig(String),
    /// Print a complete configuration file.
    DefaultConfig,
    /// Print this text: the dialects, or the description of one.
    Dialects(String),
    /// Print this text: the presets, or the routes of one.
    Presets(String),
    /// Print a completion script.
    Completions(Shell),
}

/// Why there is no command.
#[derive(Debug)]
pub enum Refusal {
    /// The command line is not understood, or help was asked for: clap has the text.
    Usage(clap::Error),
    /// The configuration is wrong.
    Configuration(Problems),
}

/// The command of this process, from its arguments and environment. Where there is none, says why
/// and answers how to exit.
pub fn parse() -> Result<Command, Exit> {
    read(std::env::args_os(), std::env::vars_os().collect()).map_err(|refusal| match refusal {
        Refusal::Usage(error) => {
            // Nothing is left to be done where even standard error is closed.
            let _ = error.print();
            if error.use_stderr() { Exit::Usage } else { Exit::Ok }
        }
        Refusal::Configuration(problems) => {
            let _ = write!(std::io::stderr(), "{}", told(&problems));
            Exit::Usage
        }
    })
}

/// The command in `arguments` (the first is the program's name) with `environment`.
pub fn read(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Vec<(OsString, OsString)>,
) -> Result<Command, Refusal> {
    let matches = program().try_get_matches_from(arguments).map_err(Refusal::Usage)?;
    let load = |matches| config::load(&sources(matches, environment)).map_err(Refusal::Configuration);
    match matches.subcommand() {
        Some(("default-config", _)) => Ok(Command::DefaultConfig),
        Some(("dialects", matches)) => Ok(Command::Dialects(dialects(matches))),
        Some(("presets", matches)) => Ok(Command::Presets(presets(matches))),
        Some(("completions", matches)) => {
            let shell = matches.get_one("SHELL").copied().expect("clap requires SHELL");
            Ok(Command::Completions(shell))
        }
        Some(("check-config", matches)) => load(matches).map(|loaded| Command::CheckConfig(fine(&loaded))),
        Some((_, matches)) => load(matches).map(|loaded| Command::Serve(Box::new(loaded.config))),
        None => load(&matches).map(|loaded| Command::Serve(Box::new(loaded.config))),
    }
}

/// Prints to standard output. A reader that has gone away (`| head`) is no failure.
pub fn print(text: &str) -> Exit {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Exit::Runtime,
        _ => Exit::Ok,
    }
}

/// The completion script for a shell.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut program(), "sidestream", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The names of the built-in dialects, or the description of the one that is named.
fn dialects(matches: &ArgMatches) -> String {
    match matches.get_one::<String>("NAME") {
        Some(wanted) => builtin().find(|(name, ..)| name == wanted).map(|(.., table)| table).unwrap_or_default(),
        None => builtin().map(|(name, about, _)| format!("{name:<20} {about}\n")).collect(),
    }
}

/// The names of the presets, or the routes of the one that is named.
fn presets(matches: &ArgMatches) -> String {
    let base = matches.get_one::<String>("base").map(String::as_str);
    match matches.get_one::<String>("NAME").and_then(|name| config::preset(name, base)) {
        Some(routes) => routes,
        None => config::presets().map(|(name, about)| format!("{name:<10} {about}\n")).collect(),
    }
}

const EXAMPLES: &str = "\
Examples:
  sidestream --upstream http://127.0.0.1:8000
      In front of the server on port 8000. Point your client at http://127.0.0.1:8787; sessions
      are kept on this machine's disk.
  sidestream --upstream http://127.0.0.1:8000 --store redis://127.0.0.1:6379
      The same, with the sessions in Redis, where other instances share them.
  sidestream --upstream http://127.0.0.1:3000 --preset ai-sdk
      In front of an AI SDK server: chats are sessions, and useChat's `resume: true` works.
  sidestream default-config > sidestream.toml
  sidestream check-config --config sidestream.toml
      A complete file to begin with; whether it is fine.

Every option is also a variable (SIDESTREAM_UPSTREAM=…) and a key of the file; the file has more.
Exit codes: 0 done, 1 failed while running, 2 usage or configuration, 3 cannot bind, 4 store refused.
";

fn program() -> clap::Command {
    let about = "A sidecar that makes any Server-Sent Events backend a durable, resumable session server.";
    clap::Command::new("sidestream")
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .after_help(EXAMPLES)
        .max_term_width(100)
        .args_conflicts_with_subcommands(true)
        .disable_help_subcommand(true)
        .args(flags())
        .subcommand(clap::Command::new("serve").about("Run the sidecar (the default command)").args(flags()))
        .subcommand(
            clap::Command::new("check-config")
                .about("Check the configuration and show the values in effect; open nothing")
                .args(flags()),
        )
        .subcommand(clap::Command::new("default-config").about("Print a complete configuration file (TOML)"))
        .subcommand(
            clap::Command::new("dialects")
                .about("Print the names of the built-in dialects, or the description of one (TOML)")
                .arg(Arg::new("NAME").value_parser(PossibleValuesParser::new(builtin().map(|(name, ..)| name)))),
        )
        .subcommand(
            clap::Command::new("presets")
                .about("Print the names of the presets, or the routes of one (TOML)")
                .arg(Arg::new("NAME").value_parser(PossibleValuesParser::new(config::presets().map(|(name, _)| name))))
                .arg(
                    Arg::new("base")
                        .long("base")
                        .value_name("PATH")
                        .value_parser(config::family_base)
                        .requires("NAME")
                        .help("Below this path"),
                ),
        )
        .subcommand(
            clap::Command::new("completions")
                .about("Print a completion script")
                .arg(Arg::new("SHELL").required(true).value_parser(value_parser!(Shell))),
        )
}

fn flags() -> Vec<Arg> {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(std::path::PathBuf))
        .help("The configuration file (TOML) [env: SIDESTREAM_CONFIG]")
        .help_heading(WHERE);
    let file = (WHERE_FILE, file);
    let defaults = Config::new(http::Uri::from_static("http://127.0.0.1:8000"));
    let mut options: Vec<_> = OPTIONS.iter().filter_map(|option| Some(flag(option, option.flag?, &defaults))).collect();
    options.insert(0, file);
    // Within a heading in this order, not by the alphabet.
    options.sort_by_key(|(rank, _)| *rank);
    options.into_iter().enumerate().map(|(i, (_, arg))| arg.display_order(i)).collect()
}

const WHERE: &str = "Where";

const WHERE_FILE: usize = 3;

/// The rank of a flag in the help, and the heading that it stands under.
fn heading(option: &Opt<Config>) -> (usize, &'static str) {
    match option.section() {
        "upstream" => (0, WHERE),
        "" if option.form == "ADDR:PORT" => (1, WHERE),
        "" if option.path == "preset" => (2, WHERE),
        "store" => (2, WHERE),
        "auth" => (4, "Who may use it"),
        "log" => (6, "Log"),
        "server" => (7, "Other"),
        _ => (5, "Who may use it"),
    }
}

fn flag(option: &'static Opt<Config>, name: &'static str, defaults: &Config) -> (usize, Arg) {
    let (rank, heading) = heading(option);
    let arg = Arg::new(option.path)
        .long(name)
        .value_name(option.form)
        .action(ArgAction::Set)
        .help_heading(heading)
        .help(help(option, option.doc.split(". ").next().unwrap_or_default(), " ", defaults))
        .long_help(help(option, option.doc, "\n", defaults));
    match option.form {
        "true|false" => (rank, arg.num_args(0..=1).require_equals(true).default_missing_value("true")),
        _ => (rank, arg),
    }
}

/// The doc line; after `separator` the default and the variable.
fn help(option: &Opt<Config>, doc: &str, separator: &str, defaults: &Config) -> StyledStr {
    let default = match option.example {
        Some(_) => String::new(),
        None => format!("[default: {}] ", option.show(defaults).trim_matches('"')),
    };
    format!("{}{separator}{default}[env: {}]", doc.trim_end_matches('.'), option.variable()).into()
}

fn sources(matches: &ArgMatches, environment: Vec<(OsString, OsString)>) -> Sources {
    let given = |option: &Opt<Config>| Some((option.path, matches.get_one::<String>(option.path)?.clone()));
    Sources {
        flags: OPTIONS.iter().filter(|option| option.flag.is_some()).filter_map(given).collect(),
        environment,
        file: matches.get_one("config").cloned(),
    }
}

fn fine(loaded: &Loaded) -> String {
    let warnings: String = loaded.config.warnings().iter().map(|warning| format!("warning: {warning}\n")).collect();
    format!("{}\n{warnings}The configuration is fine.\n", config::summary(loaded))
}

/// The problems as an operator reads them.
fn told(problems: &Problems) -> String {
    match problems.0.as_slice() {
        [problem] => format!("sidestream: {problem}\n"),
        many => {
            let lines: String = many.iter().map(|problem| format!("  {problem}\n")).collect();
            format!("sidestream: the configuration has {} problems\n{lines}", many.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_line(line: &str) -> Result<Command, Refusal> {
        read(line.split(' ').map(OsString::from), vec![("HOME".into(), "/home/a".into())])
    }

    #[test]
    fn the_command_line_is_consistent() {
        program().debug_assert();
    }

    #[test]
    fn serve_is_the_default_command() {
        for line in ["sidestream --upstream http://a:1", "sidestream serve --upstream http://a:1"] {
            assert!(
                matches!(read_line(line), Ok(Command::Serve(config)) if config.upstream.url == "http://a:1/"),
                "{line}"
            );
        }
    }

    #[test]
    fn a_switch_may_be_turned_off_by_its_value() {
        let served = |line: &str| match read_line(line) {
            Ok(Command::Serve(config)) => config.server.demo,
            other => panic!("{other:?}"),
        };
        assert!(served("sidestream --upstream http://a:1 --demo"));
        assert!(!served("sidestream --upstream http://a:1 --demo=false"));
    }

    #[test]
    fn every_flag_has_help_with_its_variable() {
        let help = program().render_long_help().to_string();
        for option in OPTIONS.iter().filter(|option| option.flag.is_some()) {
            assert!(help.contains(&format!("[env: {}]", option.variable())), "{}", option.path);
        }
    }
}
