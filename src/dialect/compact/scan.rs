//! A walk over JSON text (RFC 8259) that says where values stand, and where there is whitespace between
//! tokens. Nothing is decoded. What is not exactly one JSON value is refused.

use std::ops::Range;

use memchr::memchr2;

use crate::dialect::Path;
use crate::dialect::path::Step;

/// How deep values may be nested: as deep as frames show them as JSON.
const DEPTH: usize = 100;

/// A value that stands where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    /// Which of the paths.
    pub(super) path: usize,
    /// The value, quotes included.
    pub(super) value: Range<usize>,
    /// The numbers of the elements that the path's `*` stand for.
    pub(super) elements: Vec<usize>,
}

/// What a walk has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The values, inner ones before outer ones.
    pub(super) hits: Vec<Hit>,
    /// The whitespace outside of strings, in order.
    pub(super) spaces: Vec<Range<usize>>,
}

/// Walks over `data`. `None`: it is not one JSON value, or is nested too deep, or writes a member's name in
/// escapes where a path would have to be compared with it.
pub(super) fn scan(data: &str, paths: &[Path]) -> Option<Found> {
    let mut scanner = Scanner::new(data.as_bytes(), 0, paths);
    let all: Vec<usize> = (0..paths.len()).collect();
    scanner.value(&all, 0)?;
    scanner.space();
    (scanner.at == data.len()).then_some(scanner.found)
}

/// Where the value ends that begins at `at`, without whitespace before it.
pub(super) fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => Some(string_end(bytes, at + 1)? + 1),
        b'-' | b'0'..=b'9' => number_end(bytes, at),
        b'{' | b'[' => {
            let mut scanner = Scanner::new(bytes, at, &[]);
            scanner.value(&[], 0)?;
            Some(scanner.at)
        }
        _ => word_end(bytes, at),
    }
}

/// Where the string ends, its closing quote, whose contents begin at `at`.
pub(super) fn string_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += plain(bytes.get(at..)?)?;
        match bytes[at] {
            b'"' => return Some(at),
            b'\\' => {
                at += match bytes.get(at + 1)? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                    b'u' if bytes.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit) => 6,
                    _ => return None,
                }
            }
            _ => return None,
        }
    }
}

/// How many bytes come before one that is not plain text of a string: a quote, a backslash, a control character.
fn plain(bytes: &[u8]) -> Option<usize> {
    /// Texts of that many bytes are the most: a search would take longer to begin than to look at each.
    const SHORT: usize = 24;
    let is_plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    let (short, rest) = bytes.split_at(bytes.len().min(SHORT));
    if let Some(near) = short.iter().position(|byte| !is_plain(*byte)) {
        return Some(near);
    }
    let far = memchr2(b'"', b'\\', rest)?;
    let control = rest[..far].iter().position(|byte| *byte < 0x20);
    Some(short.len() + control.unwrap_or(far))
}

/// Whether `byte` is whitespace of JSON.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

fn number_end(bytes: &[u8], start: usize) -> Option<usize> {
    let digits = |from: usize| {
        let count = bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count > 0).then_some(from + count)
    };
    let whole = start + usize::from(bytes[start] == b'-');
    let mut at = digits(whole)?;
    if bytes[whole] == b'0' && at > whole + 1 {
        return None;
    }
    if bytes.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        at = digits(at + 1 + sign)?;
    }
    Some(at)
}

fn word_end(bytes: &[u8], at: usize) -> Option<usize> {
    let words: [&[u8]; 3] = [b"null", b"true", b"false"];
    words.iter().find(|word| bytes[at..].starts_with(word)).map(|word| at + word.len())
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    paths: &'a [Path],
    /// The elements of arrays that lead here: after how many steps, and which.
    within: Vec<(usize, usize)>,
    found: Found,
}

impl<'a> Scanner<'a> {
    fn new(bytes: &'a [u8], at: usize, paths: &'a [Path]) -> Self {
        Scanner { bytes, at, paths, within: Vec::new(), found: Found::default() }
    }

    /// One value, at which `active` paths have come after `depth` steps.
    fn value(&mut self, active: &[usize], depth: usize) -> Option<()> {
        self.space();
        let start = self.at;
        match self.bytes.get(start)? {
            b'{' => self.object(active, depth)?,
            b'[' => self.array(active, depth)?,
            _ => self.at = value_end(self.bytes, start)?,
        }
        let value = start..self.at;
        for path in active.iter().copied().filter(|path| self.paths[*path].steps().len() == depth) {
            let stars = self.within.iter().filter(|(step, _)| self.paths[path].steps()[*step] == Step::Every);
            let elements = stars.map(|(_, element)| *element).collect();
            self.found.hits.push(Hit { path, value: value.clone(), elements });
        }
        Some(())
    }

    fn object(&mut self, active: &[usize], depth: usize) -> Option<()> {
        self.at += 1;
        self.space();
        if self.take(b'}') {
            return Some(());
        }
        loop {
            self.space();
            self.take(b'"').then_some(())?;
            let name = self.at..string_end(self.bytes, self.at)?;
            self.at = name.end + 1;
            let name = &self.bytes[name];
            if !active.is_empty() && name.contains(&b'\\') {
                return None;
            }
            self.space();
            self.take(b':').then_some(())?;
            let further = self.further(active, |path| path.goes_to(depth, name));
            self.deeper(&further, depth)?;
            self.space();
            match self.take(b',') {
                true => {}
                false => return self.take(b'}').then_some(()),
            }
        }
    }

    fn array(&mut self, active: &[usize], depth: usize) -> Option<()> {
        self.at += 1;
        self.space();
        if self.take(b']') {
            return Some(());
        }
        for index in 0.. {
            let further = self.further(active, |path| path.goes_to_element(depth, index));
            self.within.push((depth, index));
            self.deeper(&further, depth)?;
            self.within.pop();
            self.space();
            if !self.take(b',') {
                break;
            }
        }
        self.take(b']').then_some(())
    }

    fn further(&self, active: &[usize], goes: impl Fn(&Path) -> bool) -> Vec<usize> {
        active.iter().copied().filter(|path| goes(&self.paths[*path])).collect()
    }

    fn deeper(&mut self, active: &[usize], depth: usize) -> Option<()> {
        (depth < DEPTH).then_some(())?;
        self.value(active, depth + 1)
    }

    fn take(&mut self, byte: u8) -> bool {
        let is = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(is);
        is
    }

    fn space(&mut self) {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(|byte| is_space(*byte)) {
            self.at += 1;
        }
        if self.at > start {
            self.found.spaces.push(start..self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    #[test]
    fn values_are_found_where_they_stand() {
        let data = r#"{"a": [{"b":"x\"y"}, {"b": 1}, {"c":[]}], "b": "no"}"#;
        let paths = [path("/a/*/b"), path("/a/1/b"), path("/a"), path("/a/2/c/0"), path("")];
        let found = scan(data, &paths).unwrap();
        let values: Vec<_> = found.hits.iter().map(|hit| (hit.path, &data[hit.value.clone()])).collect();
        let all = r#"[{"b":"x\"y"}, {"b": 1}, {"c":[]}]"#;
        assert_eq!(values, [(0, r#""x\"y""#), (0, "1"), (1, "1"), (2, all), (4, data)]);
        let elements: Vec<_> = found.hits.iter().map(|hit| &*hit.elements).collect();
        assert_eq!(elements, [&[0][..], &[1], &[], &[], &[]]);
        assert_eq!(found.spaces.len(), 6);
    }

    #[test]
    fn a_name_that_is_written_in_escapes_is_not_compared() {
        let a = [path("/a")];
        assert!(scan(r#"{"\u0061":1}"#, &a).is_none());
        assert!(scan(r#"{"b":{"\u0061":1}}"#, &a).is_some());
    }

    proptest! {
        #[test]
        fn what_is_json_is_what_others_say_is_json(text in r#"[\[\]{}:,"\\u0-9a-f.eE+ntrue-]{0,16}"#) {
            let ours = scan(&text, &[]).is_some();
            prop_assert_eq!(ours, serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok(), "{}", text);
        }
    }
}
