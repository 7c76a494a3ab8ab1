//! Who a user is to us: a digest, never the credential that it was made of.

use std::fmt;

use bytestring::ByteString;

/// The digest of a request's principal, as 64 hexadecimal digits. All devices that present the same
/// principal are one subject. It tells nothing of the principal, and is still shown to nobody but
/// operators: a weak credential could be guessed from it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(ByteString);

impl Subject {
    /// The subject with this SHA-256 digest.
    pub fn from_digest(digest: [u8; 32]) -> Self {
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Subject(hex.into())
    }

    /// The subject that `text` names: 64 digits `0-9 a-f`.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (text.len() == 64 && text.bytes().all(hex)).then(|| Subject(text.into()))
    }

    /// The digits. Safe in keys and paths as they are.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Not shown in logs.
impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subject")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_named_by_its_digest() {
        let subject = Subject::from_digest([0xab; 32]);
        assert_eq!(subject.as_str(), "ab".repeat(32));
        assert_eq!(Subject::parse(subject.as_str()), Some(subject.clone()));
        for other in ["", "me", &"AB".repeat(32), &"ab".repeat(33)] {
            assert_eq!(Subject::parse(other), None, "{other}");
        }
        assert!(!format!("{subject:?}").contains("ab"), "it is not written to logs");
    }
}
