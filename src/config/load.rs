//! Merges the sources and checks the result: flags > environment > file > defaults. Reads the file
//! and nothing else; opens no port and no store.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::check;
use super::environment;
use super::file::{self, Assignment, RouteTable};
use super::options::{LATER, OPTIONS, Opt, ROUTE_OPTIONS, find, unknown};
use super::presets;
use super::problem::{Origin, Problem, Problems};
use super::route_settings::Route;
use super::settings::Config;
use super::store_url::StoreUrl;
use super::value::Given;
use super::warnings::{self, Written};
use crate::dialect::{Dialect, Dialects};

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Flags that were given: the option's path and its value.
    pub flags: Vec<(&'static str, String)>,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
    /// `--config`; without it `SIDESTREAM_CONFIG` of the environment counts.
    pub file: Option<PathBuf>,
}

/// A configuration, and where its values come from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values, checked.
    pub config: Config,
    /// Where each option that is not at its default was written, by path.
    pub origins: BTreeMap<&'static str, Origin>,
}

/// Reads, merges and checks. The error holds every problem that was found.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let mut draft = Draft::new();
    if let Some((path, asked_by)) = sources.config_file() {
        draft.read_file(&path, &asked_by);
    }
    let (variables, problems) = environment::assignments(&sources.environment);
    draft.problems.extend(problems);
    draft.assign(variables);
    draft.assign(sources.flags.iter().map(|(path, value)| flag(path, value)).collect());
    draft.finish(sources)
}

impl Sources {
    fn variable(&self, name: &str) -> Option<OsString> {
        let found = self.environment.iter().find(|(variable, _)| variable == name);
        found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    }

    /// The file to read, and who asks for it.
    fn config_file(&self) -> Option<(PathBuf, Origin)> {
        let by_flag = self.file.clone().map(|file| (file, Origin::Flag("--config".into())));
        by_flag.or_else(|| {
            Some((self.variable("SIDESTREAM_CONFIG")?.into(), Origin::Variable("SIDESTREAM_CONFIG".into())))
        })
    }
}

fn flag(path: &str, value: &str) -> Assignment {
    let name = OPTIONS.iter().find(|option| option.path == path).and_then(|option| option.flag).unwrap_or(path);
    let shown = format!("--{name}");
    Assignment {
        name: path.into(),
        shown: shown.clone(),
        given: Given::Text(value.into()),
        origin: Origin::Flag(shown),
    }
}

/// A configuration that is being put together.
struct Draft {
    config: Config,
    origins: BTreeMap<&'static str, Origin>,
    routes: Vec<Written>,
    problems: Vec<Problem>,
}

impl Draft {
    fn new() -> Self {
        // `finish` refuses a configuration whose upstream nobody gave.
        let nowhere = http::Uri::from_static("http://upstream.invalid");
        Draft { config: Config::new(nowhere), origins: BTreeMap::new(), routes: Vec::new(), problems: Vec::new() }
    }

    fn read_file(&mut self, path: &Path, asked_by: &Origin) {
        let file = match std::fs::read_to_string(path) {
            Ok(text) => file::parse(path, &text),
            Err(error) => Err(Problem::at(asked_by, format!("cannot read {}: {error}", path.display()))),
        };
        match file {
            Ok(file) => {
                self.assign(file.assignments);
                self.dialects(file.dialects);
                let routes: Vec<_> = file.routes.into_iter().flat_map(|table| self.routes(table)).collect();
                self.routes = routes;
            }
            Err(problem) => self.problems.push(problem),
        }
        self.problems.sort_by(|a, b| a.origin.cmp(&b.origin));
    }

    fn dialects(&mut self, dialects: Vec<(Origin, Result<Dialect, Problem>)>) {
        let mut described: Vec<Dialect> = Vec::new();
        for (origin, dialect) in dialects {
            match dialect {
                Ok(dialect) if described.iter().any(|known| known.name == dialect.name) => {
                    let message = format!("[[dialect]] `{}` is described twice; keep one", dialect.name);
                    self.problems.push(Problem::at(&origin, message));
                }
                Ok(dialect) => {
                    self.config.without_effect.extend(warnings::replaces_builtin(&origin, &dialect.name));
                    described.push(dialect);
                }
                Err(problem) => self.problems.push(problem),
            }
        }
        self.config.dialects = Dialects::new(described);
    }

    /// Puts the assignments of one source over what is there.
    fn assign(&mut self, assignments: Vec<Assignment>) {
        let mut given: BTreeMap<&str, String> = BTreeMap::new();
        for assignment in assignments {
            let Some(option) = find(OPTIONS, &assignment.name) else {
                self.problems.push(Problem::at(&assignment.origin, self.unknown_key(&assignment)));
                continue;
            };
            // The same option by its long and its short name.
            if let Some(first) = given.insert(option.path, assignment.shown.clone()) {
                let message = format!("`{first}` and `{}` are the same option; keep one", assignment.shown);
                self.problems.push(Problem::at(&assignment.origin, message));
                continue;
            }
            self.put(option, assignment);
        }
    }

    fn put(&mut self, option: &'static Opt<Config>, assignment: Assignment) {
        match option.put(&mut self.config, &assignment.given) {
            Ok(()) => {}
            // A flag or variable is named by its origin already.
            Err(error) if matches!(assignment.origin, Origin::Line(..)) => {
                self.problems.push(Problem::at(&assignment.origin, format!("`{}`: {error}", assignment.shown)));
            }
            Err(error) => self.problems.push(Problem::at(&assignment.origin, error)),
        }
        self.origins.insert(option.path, assignment.origin);
    }

    fn unknown_key(&self, assignment: &Assignment) -> String {
        if assignment.name == "route" || assignment.name.starts_with("route.") {
            return "routes are written in the file (`--config FILE`)".into();
        }
        if assignment.name == "dialect" || assignment.name.starts_with("dialect.") {
            return "dialects are written in the file (`--config FILE`), as `[[dialect]]`".into();
        }
        unknown(OPTIONS, LATER, &assignment.name, &assignment.shown)
    }

    /// The routes that a `[[route]]` stands for.
    fn routes(&mut self, table: RouteTable) -> Vec<Written> {
        self.config.without_effect.extend(presets::ignored_base(&table));
        let origin = table.origin.clone();
        let tables = presets::expand(table).unwrap_or_else(|problem| {
            self.problems.push(problem);
            Vec::new()
        });
        let routes = tables.into_iter().filter_map(|table| self.route(&table));
        routes.map(|route| (origin.clone(), route)).collect()
    }

    fn route(&mut self, table: &RouteTable) -> Option<Route> {
        let mut route = Route::unnamed();
        let mut problems = Vec::new();
        for assignment in &table.assignments {
            let Some(option) = find(ROUTE_OPTIONS, &assignment.name) else {
                let message = unknown(ROUTE_OPTIONS, &[], &assignment.name, &assignment.name);
                problems.push(Problem::at(&assignment.origin, format!("[[route]] {message}")));
                continue;
            };
            if let Err(error) = option.put(&mut route, &assignment.given) {
                problems.push(Problem::at(&assignment.origin, format!("[[route]] `{}`: {error}", option.path)));
            } else if option.path == "dialect"
                && let Some(wrong) = check::unknown_dialect(&route, &self.config.dialects)
            {
                problems.push(Problem::at(&assignment.origin, wrong));
            }
        }
        let says = |name: &str| table.assignments.iter().any(|assignment| assignment.name == name);
        if !says("match") && !says("preset") {
            let lacks = "[[route]] lacks its `match`, such as `match = \"POST /api/chat\"`, or a `preset`";
            problems.push(Problem::at(&table.origin, lacks));
        }
        // Rules about values together mean little while single values are wrong.
        if problems.is_empty() {
            problems
                .extend(check::route(&route, &self.config.dialects).map(|message| Problem::at(&table.origin, message)));
        }
        let fine = problems.is_empty();
        // What is wrong beside a preset is wrong for all routes of its family.
        problems.retain(|problem| !self.problems.contains(problem));
        self.problems.extend(problems);
        fine.then_some(route)
    }

    fn finish(mut self, sources: &Sources) -> Result<Loaded, Problems> {
        if !self.origins.contains_key("upstream.url") {
            self.problems.push(Problem::overall(
                "no upstream is named; say which server is beside us with `--upstream http://HOST:PORT` \
                 (or SIDESTREAM_UPSTREAM, or `upstream.url` in the file); `sidestream --help` has examples",
            ));
        }
        let own = self.routes.len();
        for name in self.config.presets.clone() {
            let origin = self.origins.get("preset").unwrap_or(&Origin::Default).clone();
            let routes = self.routes(presets::table(&name, &origin));
            self.routes.extend(routes);
        }
        self.config.without_effect.extend(warnings::of_routes(&self.routes, own, &self.config.dialects));
        self.config.routes = self.routes.into_iter().map(|(_, route)| route).collect();
        if self.problems.is_empty() {
            if self.config.store.url.is_none() {
                let find = |name: &str| sources.variable(name);
                self.config.store.url = StoreUrl::embedded_default(&self.config.upstream.url, find);
            }
            self.problems = check::together(&self.config);
        }
        if self.problems.is_empty() {
            Ok(Loaded { config: self.config, origins: self.origins })
        } else {
            Err(Problems(self.problems))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::config::{Intercept, SessionRule};

    /// Sources with an upstream and a home.
    fn sources(
        file: &str,
        variables: &[(&str, &str)],
        flags: &[(&'static str, &str)],
    ) -> (Sources, tempfile::NamedTempFile) {
        let mut on_disk = tempfile::NamedTempFile::new().unwrap();
        on_disk.write_all(file.as_bytes()).unwrap();
        let mut environment: Vec<(OsString, OsString)> = vec![("HOME".into(), "/home/a".into())];
        environment.extend(variables.iter().map(|(n, v)| (n.into(), v.into())));
        let flags = flags.iter().map(|(path, value)| (*path, value.to_string())).collect();
        (Sources { flags, environment, file: Some(on_disk.path().into()) }, on_disk)
    }

    fn loaded(file: &str, variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Config {
        load(&sources(file, variables, flags).0).unwrap().config
    }

    /// The problems, with the file's path cut off.
    fn problems(file: &str, variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Vec<String> {
        let (sources, on_disk) = sources(file, variables, flags);
        let Problems(problems) = load(&sources).unwrap_err();
        let path = format!("{}:", on_disk.path().display());
        problems.iter().map(|problem| problem.to_string().replace(&path, "")).collect()
    }

    const UPSTREAM: (&str, &str) = ("upstream.url", "http://127.0.0.1:8000");

    #[test]
    fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
        let file = "[limits]\nsockets = 1\nsessions_per_socket = 1\n[upstream]\nurl = \"http://file:1\"\n[log]\nlevel = \"warn\"";
        let variables = [
            ("SIDESTREAM_LIMITS__SOCKETS", "2"),
            ("SIDESTREAM_UPSTREAM", "http://env:1"),
            ("SIDESTREAM_LOG__LEVEL", "debug"),
        ];
        let config = loaded(file, &variables, &[("upstream.url", "http://flag:1")]);
        assert_eq!(config.upstream.url, "http://flag:1/");
        assert_eq!((config.limits.sockets, config.limits.sessions_per_socket), (2, 1));
        assert_eq!(config.log.level, "debug");
    }

    #[test]
    fn the_short_names_work_in_the_environment_and_in_the_file() {
        let variables = [("SIDESTREAM_STORE", "memory:"), ("SIDESTREAM_INTERCEPT", "off"), ("SIDESTREAM_AUTH", "none")];
        let config = loaded("upstream = \"http://a:1\"", &variables, &[]);
        assert_eq!(config.store.url, Some(StoreUrl::Memory));
        assert_eq!(config.intercept, Intercept::Off);
    }

    #[test]
    fn the_same_option_twice_under_two_names_is_refused() {
        let variables = [("SIDESTREAM_STORE", "memory:"), ("SIDESTREAM_STORE__URL", "memory:")];
        assert!(problems("", &variables, &[UPSTREAM])[0].contains("same option"));
    }

    #[test]
    fn every_problem_is_told_at_once_with_its_place() {
        let file = "lisen = \"x\"\n[store]\nttl = 5\n[[route]]\nsesion = []\nkeepalive = true\n";
        let found = problems(file, &[("SIDESTREAM_LIMITS__SOCKETS", "many")], &[UPSTREAM, ("listen", "8787")]);
        assert_eq!(found.len(), 7, "{found:#?}");
        assert_eq!(found[0], "1: unknown key `lisen`; did you mean `listen`?");
        assert!(found[1].starts_with("3: `store.ttl`: the number 5 lacks a unit"), "{}", found[1]);
        assert!(found[2].starts_with("4: [[route]] lacks its `match`"), "{}", found[2]);
        assert_eq!(found[3], "5: [[route]] unknown key `sesion`; did you mean `session`?");
        assert!(found[4].starts_with("6: [[route]] `keepalive`: expected a duration"), "{}", found[4]);
        assert!(found.iter().any(|p| p.starts_with("SIDESTREAM_LIMITS__SOCKETS: `many` is not a count")), "{found:#?}");
        assert!(found.iter().any(|p| p.starts_with("--listen: `8787` is not an address")), "{found:#?}");
    }

    #[test]
    fn a_route_is_read_with_its_rules() {
        let file = "[[route]]\nmatch = \"POST /t/{id}\"\nsession = [\"header:x-a\", \"json:/id\"]\ninput = \"json:/text\"\nstall = \"1s\"\n";
        let config = loaded(file, &[], &[UPSTREAM]);
        let route = &config.routes[0];
        assert_eq!(route.session[1], SessionRule::Json("/id".into()));
        assert_eq!(route.input.as_deref(), Some("/text"));
        assert!(route.pattern.matches(&http::Method::POST, "/t/7"));
    }

    #[test]
    fn every_preset_is_read_in_each_of_its_forms() {
        for (name, _) in presets::presets() {
            let listed = loaded(&format!("preset = [\"{name}\"]"), &[], &[UPSTREAM]);
            assert!(listed.routes.iter().all(|route| route.preset.as_deref() == Some(name)), "{name}");
            let family = loaded(&format!("[[route]]\npreset = \"{name}\""), &[], &[UPSTREAM]);
            assert_eq!(format!("{:?}", family.routes), format!("{:?}", listed.routes), "{name}");
            let below = loaded(&format!("[[route]]\npreset = \"{name}\"\nbase = \"/own\""), &[], &[UPSTREAM]);
            assert!(below.routes.iter().all(|route| route.pattern.path.starts_with("/own")), "{name}");
            let copied = loaded(&presets::preset(name, Some("/own")).unwrap(), &[], &[UPSTREAM]);
            assert_eq!(copied.routes.len(), below.routes.len(), "{name}");
        }
    }

    #[test]
    fn a_preset_comes_from_a_flag_and_from_the_environment_behind_the_routes_of_the_file() {
        let file = "[[route]]\nmatch = \"POST /api/chat\"\nrecord = false";
        let flag = loaded(file, &[], &[UPSTREAM, ("preset", "ai-sdk,mcp")]);
        let variable = loaded(file, &[("SIDESTREAM_PRESET", "ai-sdk, mcp")], &[UPSTREAM]);
        assert_eq!(format!("{:?}", flag.routes), format!("{:?}", variable.routes));
        assert!(!flag.routes[0].record);
        assert!(flag.routes[1..].iter().all(|route| route.preset.is_some()) && flag.routes.len() > 3);
    }

    #[test]
    fn what_stands_beside_a_preset_counts_for_its_whole_family() {
        let family = loaded("[[route]]\npreset = \"mcp\"\nstall = \"7s\"\nids = \"on\"", &[], &[UPSTREAM]).routes;
        assert!(family.len() > 1);
        assert!(family.iter().all(|route| route.stall == std::time::Duration::from_secs(7)));
        assert!(family.iter().all(|route| route.ids == crate::config::Ids::On));
    }

    #[test]
    fn a_match_beside_a_preset_makes_one_route_with_its_options() {
        let one = loaded("[[route]]\nmatch = \"POST /ask\"\npreset = \"ai-sdk\"", &[], &[UPSTREAM]).routes;
        assert_eq!((one.len(), one[0].pattern.path.as_str()), (1, "/ask"));
        assert_eq!(one[0].session, [SessionRule::Json("/id".into())]);
        assert!(one[0].resume.is_empty(), "the family's stands at its standard path");
    }

    #[test]
    fn what_is_wrong_with_a_preset_or_beside_it_is_said_once_and_what_to_do() {
        for (file, words) in [
            ("preset = [\"gpt\"]", "there is no preset `gpt`; this version has a2a, ag-ui, ai-sdk"),
            ("[[route]]\npreset = \"gpt\"", "there is no preset `gpt`; this version has a2a"),
            ("[[route]]\nmatch = \"POST /a\"\nbase = \"/b\"", "a `base` and no `preset`"),
            ("[[route]]\npreset = \"mcp\"\nbase = \"b\"", "not a path prefix"),
            ("[[route]]\npreset = \"mcp\"\nstall = 5", "lacks a unit"),
            ("[[route]]\npreset = \"anthropic\"\nresume = [\"GET /r/{session}\"]", "`resume` and no `session`"),
            ("[[route]]\nmatch = \"POST /a\"\nsession = [\"json:/id\"]\nresume = [\"GET /r\"]", "segment `{session}`"),
            ("[[route]]\nmatch = \"POST /a\"\njoin = true", "`join` and no `session`"),
            ("[[route]]\nmatch = \"POST /a\"\nwhen = \"accept=x\"", "write `header:NAME`"),
        ] {
            let found = problems(file, &[], &[UPSTREAM]);
            assert!(found.len() <= 2 && found[0].contains(words), "{file}: {found:#?}");
        }
    }

    #[test]
    fn routes_cannot_come_from_the_environment() {
        assert!(problems("", &[("SIDESTREAM_ROUTE", "x")], &[UPSTREAM])[0].contains("written in the file"));
    }

    #[test]
    fn without_an_upstream_the_flag_is_named() {
        assert!(problems("", &[], &[])[0].contains("--upstream"));
    }

    #[test]
    fn without_a_store_the_embedded_place_is_filled_in() {
        let config = loaded("", &[], &[UPSTREAM]);
        let dir = PathBuf::from("/home/a/.local/state/sidestream/127.0.0.1:8000");
        assert_eq!(config.store.url, Some(StoreUrl::File(dir)));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_who_asked_for_it() {
        let environment = vec![("SIDESTREAM_CONFIG".into(), "/does/not/exist.toml".into())];
        let error = load(&Sources { environment, ..Sources::default() }).unwrap_err().to_string();
        assert!(error.starts_with("SIDESTREAM_CONFIG: cannot read /does/not/exist.toml"), "{error}");
    }
}
