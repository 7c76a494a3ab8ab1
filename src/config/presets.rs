//! Presets: the routes of backends that are known, as data. Each is a file of `presets/` with the keys of a
//! `[[route]]`, in which `{base}` stands for the path below which the family is served.

use std::path::Path;

use super::file::{self, Assignment, File, RouteTable};
use super::problem::{Origin, Problem};
use super::route::RoutePattern;
use super::route_kinds::Base;
use super::value::{Given, Kind};

/// Every preset with its file, by name.
const PRESETS: [(&str, &str); 12] = [
    ("a2a", include_str!("presets/a2a.toml")),
    ("ag-ui", include_str!("presets/ag-ui.toml")),
    ("ai-sdk", include_str!("presets/ai-sdk.toml")),
    ("anthropic", include_str!("presets/anthropic.toml")),
    ("dify", include_str!("presets/dify.toml")),
    ("flowise", include_str!("presets/flowise.toml")),
    ("gemini", include_str!("presets/gemini.toml")),
    ("generic", include_str!("presets/generic.toml")),
    ("langgraph", include_str!("presets/langgraph.toml")),
    ("mcp", include_str!("presets/mcp.toml")),
    ("ollama", include_str!("presets/ollama.toml")),
    ("openai", include_str!("presets/openai.toml")),
];

/// The presets' names, each with what it is for.
pub fn presets() -> impl Iterator<Item = (&'static str, String)> {
    PRESETS.iter().map(|(name, text)| (*name, one(&parsed(text), "about")))
}

/// The routes of the preset of this name, as they are written in a configuration file, for its family below
/// `base`, or at its standard paths. `None`: there is no such preset.
pub fn preset(name: &str, base: Option<&str>) -> Option<String> {
    let (_, text) = PRESETS.iter().find(|(known, _)| *known == name)?;
    // What stands in front is about the preset, not a part of it.
    let routes = text.split_once("\n\n").map_or("", |(_, routes)| routes);
    let bases = match base {
        Some(base) => vec![base.to_owned()],
        None => standard_paths(name),
    };
    Some(bases.iter().map(|base| at(routes, base)).collect::<Vec<_>>().join("\n"))
}

/// Reads the path below which a family is to stand. The error says what to write.
pub fn family_base(text: &str) -> Result<String, String> {
    Base::read(&Given::Text(text.into()))
}

/// Where the family of a preset stands; empty where there is no such preset.
pub(super) fn standard_paths(name: &str) -> Vec<String> {
    let text = PRESETS.iter().find(|(known, _)| *known == name);
    text.map_or_else(Vec::new, |(_, text)| list(&parsed(text), "base"))
}

/// The routes that a `[[route]]` stands for: itself, or the family of its preset, each with what is written beside it.
pub(super) fn expand(table: RouteTable) -> Result<Vec<RouteTable>, Problem> {
    let said = |name: &str| table.assignments.iter().find(|assignment| assignment.name == name);
    let Some(preset) = said("preset") else {
        return match said("base") {
            Some(base) => Err(Problem::at(&base.origin, "[[route]] has a `base` and no `preset`; name the preset")),
            None => Ok(vec![table]),
        };
    };
    // What is wrong with a value is said where the options are read.
    let base = said("base").and_then(|base| Base::read(&base.given).ok());
    let Some(text) = preset.given.text("").ok().and_then(|name| self::preset(name, base.as_deref())) else {
        return Ok(vec![table]);
    };
    let mut family: Vec<Vec<Assignment>> = parsed(&text).routes.into_iter().map(|route| route.assignments).collect();
    if let Some(wanted) = said("match") {
        let method = |given: &Given| given.text("").ok().and_then(|text| RoutePattern::parse(text).ok()?.method);
        let wanted = method(&wanted.given);
        let of_method = |route: &Vec<Assignment>| {
            route.iter().any(|assignment| assignment.name == "match" && method(&assignment.given) == wanted)
        };
        let at = family.iter().position(of_method).unwrap_or(0);
        family = vec![family.swap_remove(at)];
        if base.is_none() {
            // It stands at the family's standard path.
            family[0].retain(|assignment| assignment.name != "resume");
        }
    }
    let with_what_is_said = |mut assignments: Vec<Assignment>| {
        assignments.retain(|assignment| said(&assignment.name).is_none());
        assignments.extend(table.assignments.iter().cloned());
        RouteTable { origin: table.origin.clone(), assignments }
    };
    Ok(family.into_iter().map(with_what_is_said).collect())
}

/// A `base` beside `match` and `preset` where nothing but the pattern stood below it.
pub(super) fn ignored_base(table: &RouteTable) -> Option<Problem> {
    let written = |name: &str| table.assignments.iter().find(|assignment| assignment.name == name);
    let base = written("base")?;
    written("match").and(written("preset"))?;
    let elsewhere = |path: &str| {
        let mut moved = table.clone();
        moved.assignments.retain(|assignment| assignment.name != "base");
        moved.assignments.push(Assignment { given: Given::Text(path.into()), ..base.clone() });
        let mut family = expand(moved).ok()?.pop()?.assignments;
        family.retain(|assignment| assignment.name != "base");
        Some(family.into_iter().map(|assignment| (assignment.name, assignment.given)).collect::<Vec<_>>())
    };
    (elsewhere("/a") == elsewhere("/b")).then(|| {
        let message =
            "[[route]] `base` means nothing beside this `match`: the one path of the route is named; remove either";
        Problem::at(&base.origin, message)
    })
}

/// The table that stands for a preset of the top of the file.
pub(super) fn table(name: &str, origin: &Origin) -> RouteTable {
    let (given, shown) = (Given::Text(name.to_owned()), "preset".to_owned());
    let assignment = Assignment { name: "preset".into(), shown, given, origin: origin.clone() };
    RouteTable { origin: origin.clone(), assignments: vec![assignment] }
}

/// `routes` below `base`; a path that is the base alone is `/` where that is the root.
fn at(routes: &str, base: &str) -> String {
    match base {
        "/" => routes.replace(" {base}\"", " /\"").replace("{base}", ""),
        base => routes.replace("{base}", base),
    }
}

fn parsed(text: &str) -> File {
    file::parse(Path::new("preset"), text).expect("every preset is read by a test")
}

fn one(file: &File, name: &str) -> String {
    list(file, name).concat()
}

fn list(file: &File, name: &str) -> Vec<String> {
    let given = file.assignments.iter().find(|assignment| assignment.name == name).map(|assignment| &assignment.given);
    let text = |given: &Given| given.text("").map(str::to_owned).ok();
    match given {
        Some(Given::List(items)) => items.iter().filter_map(text).collect(),
        Some(given) => text(given).into_iter().collect(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_says_what_it_is_for_and_has_a_standard_path() {
        for (name, text) in PRESETS {
            let file = parsed(text);
            assert!(!one(&file, "about").is_empty() && !list(&file, "base").is_empty(), "{name}");
            assert!(list(&file, "base").iter().all(|base| Base::read(&Given::Text(base.clone())).is_ok()), "{name}");
            assert!(!file.routes.is_empty(), "{name}");
        }
        assert!(PRESETS.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn a_family_stands_below_its_base() {
        let text = preset("ai-sdk", Some("/api/my-chat")).unwrap();
        assert!(text.contains("match = \"POST /api/my-chat\""), "{text}");
        assert!(text.contains("resume = [\"GET /api/my-chat/{session}/stream\"]"), "{text}");
        let text = preset("a2a", Some("/")).unwrap();
        assert!(text.contains("match = \"POST /\"") && text.contains("match = \"POST /message:stream\""), "{text}");
        assert!(preset("gpt", None).is_none());
    }
}
