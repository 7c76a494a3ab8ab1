//! The configuration file (TOML) as assignments with their lines. What the keys mean is not known
//! here. Errors never quote the file: a line may hold a password.

use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::problem::{Origin, Problem};
use super::value::Given;
use crate::dialect::Dialect;

/// One key that was given a value.
#[derive(Clone, Debug)]
pub(super) struct Assignment {
    /// Sections and key, joined by dots.
    pub(super) name: String,
    /// How the operator wrote it.
    pub(super) shown: String,
    /// The value.
    pub(super) given: Given,
    /// Where.
    pub(super) origin: Origin,
}

/// A `[[route]]`.
#[derive(Clone, Debug)]
pub(super) struct RouteTable {
    /// Where it begins.
    pub(super) origin: Origin,
    /// Its keys.
    pub(super) assignments: Vec<Assignment>,
}

/// What a file says, in the order of its lines.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    /// Every key outside of a route.
    pub(super) assignments: Vec<Assignment>,
    /// The routes.
    pub(super) routes: Vec<RouteTable>,
    /// The dialects, each with where it begins, and what is wrong with those that are none.
    pub(super) dialects: Vec<(Origin, Result<Dialect, Problem>)>,
}

/// Reads `text`, the content of the file at `path`.
pub(super) fn parse(path: &Path, text: &str) -> Result<File, Problem> {
    let lines = Lines { path, text };
    let root = DeTable::parse(text).map_err(|error| {
        // Only the parser's message: its full form repeats the line.
        let origin = error.span().map_or_else(|| Origin::File(path.into()), |span| lines.origin(&span));
        Problem::at(&origin, format!("not TOML: {}", error.message()))
    })?;
    let mut file = File::default();
    for (key, value) in root.get_ref().iter() {
        match value.get_ref() {
            DeValue::Array(tables) if key.get_ref() == "route" => {
                for table in tables.iter() {
                    let origin = lines.origin(&table.span());
                    let Some(content) = table.get_ref().as_table() else {
                        return Err(Problem::at(&origin, "a route is a table; write `[[route]]`"));
                    };
                    let mut assignments = Vec::new();
                    flatten(&lines, "", content, &mut assignments);
                    file.routes.push(RouteTable { origin, assignments });
                }
            }
            DeValue::Array(tables) if key.get_ref() == "dialect" => {
                file.dialects =
                    tables.iter().map(|table| (lines.origin(&table.span()), dialect(&lines, table))).collect();
            }
            _ if key.get_ref() == "dialect" => {
                return Err(Problem::at(
                    &lines.origin(&key.span()),
                    "dialects are an array of tables; write `[[dialect]]`",
                ));
            }
            _ if key.get_ref() == "route" => {
                return Err(Problem::at(
                    &lines.origin(&key.span()),
                    "routes are an array of tables; write `[[route]]`",
                ));
            }
            _ => flatten_value(&lines, key.get_ref().to_string(), key.span(), value, &mut file.assignments),
        }
    }
    file.assignments.sort_by(|a, b| a.origin.cmp(&b.origin));
    Ok(file)
}

/// The dialect that a `[[dialect]]` describes.
fn dialect(lines: &Lines<'_>, table: &Spanned<DeValue<'_>>) -> Result<Dialect, Problem> {
    let wrong = |at: Range<usize>, what: &str| Problem::at(&lines.origin(&at), format!("[[dialect]] {what}"));
    let dialect = Dialect::deserialize(ValueDeserializer::from(table.clone()))
        .map_err(|error| wrong(error.span().unwrap_or(table.span()), error.message()))?;
    dialect.check().map_err(|error| wrong(table.span(), &error.to_string()))?;
    Ok(dialect)
}

/// The assignments below `prefix`.
fn flatten(lines: &Lines<'_>, prefix: &str, table: &DeTable<'_>, into: &mut Vec<Assignment>) {
    for (key, value) in table.iter() {
        let name = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        flatten_value(lines, name, key.span(), value, into);
    }
}

fn flatten_value(
    lines: &Lines<'_>,
    name: String,
    at: Range<usize>,
    value: &Spanned<DeValue<'_>>,
    into: &mut Vec<Assignment>,
) {
    match value.get_ref() {
        DeValue::Table(table) => flatten(lines, &name, table, into),
        other => into.push(Assignment { shown: name.clone(), name, given: given(other), origin: lines.origin(&at) }),
    }
}

fn given(value: &DeValue<'_>) -> Given {
    match value {
        DeValue::String(text) => Given::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Given::Integer(number),
            Err(_) => Given::Other("number out of range"),
        },
        DeValue::Boolean(value) => Given::Boolean(*value),
        DeValue::Array(items) => Given::List(items.iter().map(|item| given(item.get_ref())).collect()),
        DeValue::Float(_) => Given::Other("fraction"),
        DeValue::Datetime(_) => Given::Other("date"),
        DeValue::Table(_) => Given::Other("table"),
    }
}

struct Lines<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Lines<'_> {
    fn origin(&self, span: &Range<usize>) -> Origin {
        let before = self.text.as_bytes().iter().take(span.start);
        Origin::Line(self.path.into(), before.filter(|byte| **byte == b'\n').count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_knows_its_line() {
        let text = "listen = \"a\"\n\n[store]\nttl = \"1h\" # text\nlimits.x = 1_000\n[[route]]\nmatch = \"POST /\"\n";
        let file = parse(Path::new("f.toml"), text).unwrap();
        let keys: Vec<_> = file.assignments.iter().map(|a| format!("{} {}", a.origin, a.name)).collect();
        assert_eq!(keys, ["f.toml:1 listen", "f.toml:4 store.ttl", "f.toml:5 store.limits.x"]);
        assert!(matches!(file.assignments[2].given, Given::Integer(1000)));
        assert_eq!(file.routes[0].origin.to_string(), "f.toml:6");
    }

    #[test]
    fn a_dialect_that_is_none_is_told_with_its_line() {
        let text = "[[dialect]]\nname = \"a\"\n[[dialect]]\nname = \"b\"\nend = [{ at = \"type\" }]\n\n[[dialect]]\nname = \"c\"\nends = []\n[[dialect]]\nname = \"D\"\n";
        let file = parse(Path::new("f.toml"), text).unwrap();
        assert_eq!(file.dialects[0].1.as_ref().unwrap().name, "a");
        let wrong: Vec<_> =
            file.dialects[1..].iter().map(|(_, dialect)| dialect.as_ref().unwrap_err().to_string()).collect();
        for (wrong, (line, word)) in
            wrong.iter().zip([("f.toml:5", "/key/0/key"), ("f.toml:9", "ends"), ("f.toml:10", "my-agent")])
        {
            assert!(wrong.starts_with(line) && wrong.contains(word), "{wrong}");
        }
        let single = parse(Path::new("f.toml"), "[dialect]\nname = \"a\"").unwrap_err();
        assert!(single.to_string().contains("[[dialect]]"));
    }

    #[test]
    fn a_syntax_error_names_its_line_and_does_not_quote_it() {
        let error = parse(Path::new("f.toml"), "a = 1\nurl = \"redis://:secret@h\n").unwrap_err().to_string();
        assert!(error.starts_with("f.toml:2: not TOML"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn a_single_route_table_is_told_to_use_double_brackets() {
        let error = parse(Path::new("f.toml"), "[route]\nmatch = \"POST /\"").unwrap_err();
        assert!(error.to_string().contains("[[route]]"));
    }
}
