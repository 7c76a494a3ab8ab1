//! What an option was given, and how each kind of value is read and shown. A value reads the same
//! from a flag, a variable and the file. Nothing here knows which option it reads for.

use std::fmt::Display;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::Duration;

/// What an option was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// A flag, a variable, or a string of the file.
    Text(String),
    /// A whole number of the file.
    Integer(i64),
    /// `true` or `false` of the file.
    Boolean(bool),
    /// An array of the file.
    List(Vec<Given>),
    /// Something else of the file that no option takes, by its TOML name.
    Other(&'static str),
}

impl Given {
    /// The value as text, or an error that says what was expected.
    pub(super) fn text(&self, expected: &str) -> Result<&str, String> {
        match self {
            Given::Text(text) => Ok(text.trim()),
            other => Err(format!("expected {expected}, not {}", other.describe())),
        }
    }

    fn describe(&self) -> String {
        match self {
            Given::Text(text) => format!("`{text}`"),
            Given::Integer(number) => format!("the number {number}"),
            Given::Boolean(value) => format!("`{value}`"),
            Given::List(_) => "an array".into(),
            Given::Other(name) => format!("a {name}"),
        }
    }
}

/// How one kind of value is written.
pub(super) trait Kind {
    /// What it becomes.
    type Value;
    /// Its form in one or two words, for help.
    const FORM: &'static str;
    /// Reads it; the error says what was wrong and what to write.
    fn read(given: &Given) -> Result<Self::Value, String>;
    /// Shows it as it is written in the file (TOML), without secrets.
    fn show(value: &Self::Value) -> String;
}

/// A TOML string.
pub(super) fn quoted(text: impl Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

/// `true` or `false`.
pub(super) struct YesNo;

impl Kind for YesNo {
    type Value = bool;
    const FORM: &'static str = "true|false";

    fn read(given: &Given) -> Result<bool, String> {
        match given {
            Given::Boolean(value) => Ok(*value),
            Given::Text(text) if text == "true" => Ok(true),
            Given::Text(text) if text == "false" => Ok(false),
            other => Err(format!("expected `true` or `false`, not {}", other.describe())),
        }
    }

    fn show(value: &bool) -> String {
        value.to_string()
    }
}

/// `ADDR:PORT`.
pub(super) struct ListenAddress;

impl Kind for ListenAddress {
    type Value = SocketAddr;
    const FORM: &'static str = "ADDR:PORT";

    fn read(given: &Given) -> Result<SocketAddr, String> {
        let text = given.text("ADDR:PORT")?;
        text.parse().map_err(|_| {
            format!("`{text}` is not an address to listen on; write ADDR:PORT, such as `127.0.0.1:8787`, `0.0.0.0:8787` or `[::1]:8787`")
        })
    }

    fn show(value: &SocketAddr) -> String {
        quoted(value)
    }
}

/// A time with its unit; more than nothing.
pub(super) struct Span;

impl Kind for Span {
    type Value = Duration;
    const FORM: &'static str = "DURATION";

    fn read(given: &Given) -> Result<Duration, String> {
        let span = Delay::read(given)?;
        if span.is_zero() { Err("must be longer than nothing".into()) } else { Ok(span) }
    }

    fn show(value: &Duration) -> String {
        Delay::show(value)
    }
}

/// A time with its unit; `0s` is allowed.
pub(super) struct Delay;

impl Kind for Delay {
    type Value = Duration;
    const FORM: &'static str = "DURATION";

    fn read(given: &Given) -> Result<Duration, String> {
        let text = match given {
            Given::Integer(number) => return Err(format!("the number {number} lacks a unit; write `\"{number}s\"`")),
            other => other.text("a duration, such as `\"15s\"`")?,
        };
        humantime::parse_duration(text).map_err(|_| {
            format!("`{text}` is not a duration; write a number with its unit, such as `250ms`, `5s`, `15m` or `24h`")
        })
    }

    fn show(value: &Duration) -> String {
        const UNITS: [(&str, u128); 4] =
            [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000)];
        let nanos = value.as_nanos();
        match UNITS.iter().find(|(_, unit)| nanos >= *unit && nanos.is_multiple_of(*unit)) {
            Some((name, unit)) => quoted(format!("{}{name}", nanos / unit)),
            None => quoted(humantime::format_duration(*value)),
        }
    }
}

/// A kind of value, or `none`.
pub(super) struct OrNone<K>(PhantomData<K>);

impl<K: Kind> Kind for OrNone<K> {
    type Value = Option<K::Value>;
    const FORM: &'static str = K::FORM;

    fn read(given: &Given) -> Result<Option<K::Value>, String> {
        match given {
            Given::Text(text) if text == "none" => Ok(None),
            other => K::read(other).map(Some).map_err(|error| format!("{error}; or `none`")),
        }
    }

    fn show(value: &Option<K::Value>) -> String {
        value.as_ref().map_or_else(|| quoted("none"), K::show)
    }
}

/// A kind of value that is absent until it is given.
pub(super) struct Unset<K>(PhantomData<K>);

impl<K: Kind> Kind for Unset<K> {
    type Value = Option<K::Value>;
    const FORM: &'static str = K::FORM;

    fn read(given: &Given) -> Result<Option<K::Value>, String> {
        K::read(given).map(Some)
    }

    fn show(value: &Option<K::Value>) -> String {
        value.as_ref().map_or_else(|| "(not set)".into(), K::show)
    }
}

/// How many; at least 1.
pub(super) struct Count<N>(PhantomData<N>);

impl<N: TryFrom<u64> + Display> Kind for Count<N> {
    type Value = N;
    const FORM: &'static str = "COUNT";

    fn read(given: &Given) -> Result<N, String> {
        let number = match given {
            Given::Integer(number) => u64::try_from(*number).ok(),
            other => other.text("a whole number")?.replace('_', "").parse().ok(),
        };
        number
            .filter(|number| *number > 0)
            .and_then(|number| N::try_from(number).ok())
            .ok_or_else(|| format!("{} is not a count; write a whole number from 1 on", given.describe()))
    }

    fn show(value: &N) -> String {
        value.to_string()
    }
}

/// Bytes; at least 1.
pub(super) struct Bytes<N>(PhantomData<N>);

/// Units of sizes, the largest first. The decimal ones are read, never written.
const UNITS: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

impl<N: TryFrom<u64> + TryInto<u64> + Copy + Display> Kind for Bytes<N> {
    type Value = N;
    const FORM: &'static str = "SIZE";

    fn read(given: &Given) -> Result<N, String> {
        let number = match given {
            Given::Integer(number) => u64::try_from(*number).ok(),
            other => parse_size(other.text("a size, such as `\"16MiB\"`")?),
        };
        number.filter(|number| *number > 0).and_then(|number| N::try_from(number).ok()).ok_or_else(|| {
            format!(
                "{} is not a size; write a whole number with its unit, such as `256KiB`, `16MiB` or `2GiB`",
                given.describe()
            )
        })
    }

    fn show(value: &N) -> String {
        let Ok(bytes) = (*value).try_into() else { return value.to_string() };
        let exact = UNITS.iter().take(3).find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size));
        exact.map_or_else(|| bytes.to_string(), |(unit, size)| quoted(format!("{}{unit}", bytes / size)))
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.replace('_', "").parse().ok()?;
    let unit = match unit.trim() {
        "" => 1,
        unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.checked_mul(unit)
}

/// One of a few names.
pub(super) struct OneOf<C>(PhantomData<C>);

/// A type whose values have names.
pub(super) trait Choice: PartialEq + Copy + 'static {
    /// The names, joined by `|`.
    const FORM: &'static str;
    /// Every name with its value.
    const NAMES: &'static [(&'static str, Self)];
    /// Names that a later version knows.
    const LATER: &'static [&'static str] = &[];
}

impl<C: Choice> Kind for OneOf<C> {
    type Value = C;
    const FORM: &'static str = C::FORM;

    fn read(given: &Given) -> Result<C, String> {
        let expected = format!("one of `{}`", C::FORM.replace('|', "`, `"));
        let text = given.text(&expected)?;
        if C::LATER.contains(&text) {
            return Err(format!("`{text}` comes with a later version; this one has {expected}"));
        }
        let named = C::NAMES.iter().find(|(name, _)| *name == text);
        named.map(|(_, value)| *value).ok_or_else(|| format!("expected {expected}, not `{text}`"))
    }

    fn show(value: &C) -> String {
        C::NAMES.iter().find(|(_, named)| named == value).map_or_else(String::new, |(name, _)| quoted(name))
    }
}

/// An array in the file; elsewhere separated by commas.
pub(super) struct ListOf<K>(PhantomData<K>);

impl<K: Kind> Kind for ListOf<K> {
    type Value = Vec<K::Value>;
    const FORM: &'static str = "LIST";

    fn read(given: &Given) -> Result<Vec<K::Value>, String> {
        match given {
            Given::List(items) => items.iter().map(K::read).collect(),
            Given::Text(text) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                items.map(|item| K::read(&Given::Text(item.into()))).collect()
            }
            other => Err(format!("expected an array, not {}", other.describe())),
        }
    }

    fn show(value: &Vec<K::Value>) -> String {
        format!("[{}]", value.iter().map(K::show).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Given {
        Given::Text(text.into())
    }

    #[test]
    fn a_size_is_read_with_its_unit_and_shown_in_the_largest_that_is_exact() {
        for (written, bytes, shown) in [
            ("16MiB", 16 << 20, "\"16MiB\""),
            ("1 GiB", 1 << 30, "\"1GiB\""),
            ("1536KiB", 1536 << 10, "\"1536KiB\""),
            ("1_000", 1000, "1000"),
            ("2MB", 2_000_000, "2000000"),
        ] {
            let size = <Bytes<u64>>::read(&text(written)).unwrap();
            assert_eq!((size, <Bytes<u64>>::show(&size).as_str()), (bytes, shown));
        }
        for wrong in ["", "0", "MiB", "16mib", "-1", "1.5MiB", "99999999999GiB"] {
            assert!(<Bytes<u64>>::read(&text(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_duration_needs_a_unit() {
        assert_eq!(Span::read(&text("15m")), Ok(Duration::from_secs(900)));
        for written in ["250ms", "90s", "15m", "24h", "0s"] {
            assert_eq!(Delay::show(&Delay::read(&text(written)).unwrap()), format!("\"{written}\""));
        }
        assert!(Span::read(&Given::Integer(15)).unwrap_err().contains("\"15s\""));
        assert!(Span::read(&text("15")).is_err());
        assert!(Span::read(&text("0s")).is_err());
        assert_eq!(Delay::read(&text("0s")), Ok(Duration::ZERO));
        assert_eq!(<OrNone<Span>>::read(&text("none")), Ok(None));
    }

    #[test]
    fn a_list_reads_the_same_from_the_file_and_from_a_variable() {
        let file = Given::List(vec![text("1"), Given::Integer(2)]);
        assert_eq!(<ListOf<Count<u64>>>::read(&file), Ok(vec![1, 2]));
        assert_eq!(<ListOf<Count<u64>>>::read(&text("1, 2")), Ok(vec![1, 2]));
        assert_eq!(<ListOf<Count<u64>>>::read(&text("")), Ok(vec![]));
        assert!(<ListOf<Count<u64>>>::read(&text("1,x")).is_err());
    }

    #[test]
    fn a_value_of_the_wrong_type_says_what_was_expected() {
        assert_eq!(YesNo::read(&text("yes")).unwrap_err(), "expected `true` or `false`, not `yes`");
        assert!(ListenAddress::read(&Given::Integer(8787)).unwrap_err().contains("ADDR:PORT"));
        assert!(<Count<usize>>::read(&Given::Other("table")).is_err());
    }
}
