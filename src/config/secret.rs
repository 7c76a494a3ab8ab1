//! Where a secret is found. Shown by its place, never by what it is.

use std::fmt;
use std::path::PathBuf;

/// A secret, or where it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// In a variable of the environment; read once.
    Variable {
        /// Its name.
        name: String,
        /// What it held.
        value: String,
    },
    /// In a file; read whenever it is needed.
    File(PathBuf),
}

impl Secret {
    /// Reads `env:NAME` or `file:PATH`. The error repeats nothing but a variable's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("env", name)) => match std::env::var(name) {
                Ok(value) if !value.is_empty() => Ok(Secret::Variable { name: name.into(), value }),
                _ => Err(format!("the variable `{name}` is not set, or empty")),
            },
            Some(("file", path)) if !path.is_empty() => Ok(Secret::File(path.into())),
            // Not what was written: it may be the secret itself.
            _ => Err("write `env:NAME` or `file:PATH`, where the password is found".into()),
        }
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Variable { name, .. } => write!(f, "env:{name}"),
            Secret::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_by_its_place() {
        let file = Secret::parse("file:/run/secrets/redis").expect("a place");
        assert_eq!(file.to_string(), "file:/run/secrets/redis");
        let value = "s3cret".to_owned();
        assert_eq!(format!("{:?}", Secret::Variable { name: "PW".into(), value }), "Secret(env:PW)");
    }

    #[test]
    fn what_is_no_place_is_refused_without_repeating_it() {
        for bad in ["s3cret", "s3:cret", "file:", "env:SIDESTREAM_TEST_NO_SUCH_VARIABLE"] {
            let error = Secret::parse(bad).expect_err(bad);
            assert!(!error.contains("s3"), "{error}");
        }
    }
}
