//! Where a request says whose it is.

use http::HeaderName;

use super::route::{header_name, parameter_name};

/// What of a request is its principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrincipalRule {
    /// `header:NAME`, the whole value.
    Header(HeaderName),
    /// `cookie:NAME`.
    Cookie(String),
}

impl PrincipalRule {
    /// Reads `KIND:NAME`. The error says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("header", name)) => Ok(PrincipalRule::Header(header_name(name)?)),
            Some(("cookie", name)) => Ok(PrincipalRule::Cookie(parameter_name("cookie", name)?)),
            Some(("jwt", _)) => Err("`jwt:` comes with a later version".into()),
            _ => Err(format!("`{text}` is not a principal; write `header:NAME` or `cookie:NAME`")),
        }
    }
}

impl std::fmt::Display for PrincipalRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PrincipalRule::Header(name) => write!(f, "header:{name}"),
            PrincipalRule::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_a_header_or_a_cookie() {
        for text in ["header:authorization", "cookie:sid"] {
            assert_eq!(PrincipalRule::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "authorization", "header:", "header:a b", "cookie:a=b", "query:user"] {
            assert!(PrincipalRule::parse(text).is_err(), "{text}");
        }
        assert!(PrincipalRule::parse("jwt:sub").unwrap_err().contains("later version"));
    }
}
