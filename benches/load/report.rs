//! Tables as text and as JSON.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

/// The outcome of an experiment.
pub(crate) struct Report {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What was asked, in one sentence.
    pub(crate) question: String,
    /// The stated load and everything else that was set.
    pub(crate) settings: Value,
    /// What came out.
    pub(crate) tables: Vec<Table>,
    /// What a reader must know to read the tables.
    pub(crate) notes: Vec<String>,
}

/// A table; its columns are the keys in JSON.
pub(crate) struct Table {
    title: &'static str,
    columns: &'static [&'static str],
    rows: Vec<Vec<Cell>>,
}

/// A value and how it is shown.
pub(crate) struct Cell {
    shown: String,
    value: Value,
}

impl Cell {
    /// A number with so many decimals.
    pub(crate) fn number(value: f64, decimals: usize) -> Self {
        if !value.is_finite() {
            return Cell::none();
        }
        let shown = format!("{value:.decimals$}");
        let value = shown.parse::<f64>().map_or(Value::Null, |rounded| json!(rounded));
        Cell { shown, value }
    }

    /// A count.
    pub(crate) fn count(value: u64) -> Self {
        let digits = value.to_string();
        let mut shown = String::new();
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                shown.push(',');
            }
            shown.push(digit);
        }
        Cell { shown, value: json!(value) }
    }

    /// Words.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        let shown = text.into();
        Cell { value: json!(shown), shown }
    }

    /// Does not apply here.
    pub(crate) fn none() -> Self {
        Cell { shown: "–".into(), value: Value::Null }
    }
}

impl Table {
    /// An empty table.
    pub(crate) fn new(title: &'static str, columns: &'static [&'static str]) -> Self {
        Table { title, columns, rows: Vec::new() }
    }

    /// One more row, a cell for each column.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.into());
    }

    fn markdown(&self) -> String {
        let width = |column: usize| {
            let shown = self.rows.iter().map(|row| row[column].shown.chars().count());
            shown.chain([self.columns[column].chars().count(), 3]).max().unwrap_or(3)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut out = format!("{}\n\n", self.title);
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            for (i, cell) in cells.enumerate() {
                // Writing to a String cannot fail. The first column is words.
                let _ = match i {
                    0 => write!(out, "| {cell:<width$} |", width = widths[i]),
                    _ => write!(out, " {cell:>width$} |", width = widths[i]),
                };
            }
            out.push('\n');
        };
        line(&mut self.columns.iter().copied());
        let rule = |(i, width): (usize, &usize)| match i {
            0 => "-".repeat(*width),
            _ => format!("{}:", "-".repeat(width - 1)),
        };
        let rules: Vec<String> = widths.iter().enumerate().map(rule).collect();
        line(&mut rules.iter().map(String::as_str));
        for row in &self.rows {
            line(&mut row.iter().map(|cell| cell.shown.as_str()));
        }
        out
    }

    fn json(&self) -> Value {
        let row = |cells: &Vec<Cell>| {
            let members = self.columns.iter().zip(cells).map(|(name, cell)| ((*name).to_owned(), cell.value.clone()));
            Value::Object(members.collect::<Map<_, _>>())
        };
        json!({ "title": self.title, "rows": self.rows.iter().map(row).collect::<Vec<_>>() })
    }
}

impl Report {
    /// As Markdown, which is also how it is printed.
    pub(crate) fn markdown(&self, machine: &Value) -> String {
        let mut out = format!("# scripts/bench {}\n\n{}\n\n", self.name, self.question);
        for (what, values) in [("Machine", machine), ("Settings", &self.settings)] {
            let members = values.as_object().into_iter().flatten();
            let shown = members.map(|(name, value)| match value.as_str() {
                Some(text) => format!("{}: {text}", name.replace('_', " ")),
                None => format!("{}: {value}", name.replace('_', " ")),
            });
            let _ = writeln!(out, "{what}. {}.\n", shown.collect::<Vec<_>>().join("; "));
        }
        for table in &self.tables {
            let _ = writeln!(out, "{}", table.markdown());
        }
        for note in &self.notes {
            let _ = writeln!(out, "- {note}");
        }
        out
    }

    /// As JSON.
    pub(crate) fn json(&self, machine: &Value) -> Value {
        json!({
            "name": self.name,
            "question": self.question,
            "machine": machine,
            "settings": self.settings,
            "tables": self.tables.iter().map(Table::json).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }

    /// Writes NAME.md and NAME.json into `folder`.
    pub(crate) fn save(&self, folder: &Path, machine: &Value) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)?;
        let file = |extension: &str| folder.join(format!("{}.{extension}", self.name));
        std::fs::write(file("md"), self.markdown(machine))?;
        std::fs::write(file("json"), format!("{:#}\n", self.json(machine)))?;
        Ok(())
    }
}
