//! The token for Consul, and where it comes from.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use super::Args;
use super::secret::Secret;
use crate::kit::log::chain;

/// A token for Consul: visible characters of ASCII, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Token {
    /// It does not change.
    Given(Secret<String>),
    /// It was read from a file, and may be [read again](Self::read).
    File {
        /// The file.
        path: PathBuf,
        /// What was in it.
        token: Secret<String>,
    },
}

impl Token {
    /// Reads a token from a file, without blanks around it. Blocks for as long as the file system does.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the file, without showing what is in it.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(MOST_TOKEN + 1).read_to_string(&mut text))
            .map_err(|source| TokenError::Io { path: path.to_owned(), source })?;
        Ok(Self::File { path: path.to_owned(), token: token(&text)? })
    }

    /// The token itself.
    pub fn secret(&self) -> &Secret<String> {
        match self {
            Self::Given(token) | Self::File { token, .. } => token,
        }
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing.
    #[error("the token is empty")]
    Empty,
    /// It cannot be sent in a header.
    #[error("this is no token: it has blanks or other characters in it, or is too long")]
    NotVisible,
}

/// The token that is given, or the one of Consul's own tools, or what is wrong with the file it should be in.
///
/// # Errors
///
/// What is wrong with the arguments and variables themselves.
pub(super) fn from_args(
    args: &Args,
    variable: impl Fn(&OsStr) -> Option<OsString>,
) -> Result<Result<Option<Token>, String>, String> {
    let from_file = |name: &str, path: &Path| match Token::read(path) {
        Ok(token) => Ok(Some(token)),
        Err(error) => Err(wrong(name, &error)),
    };
    match (&args.consul_token, &args.consul_token_file) {
        (Some(_), Some(_)) => {
            return Err("TRICOT_CONSUL_TOKEN and TRICOT_CONSUL_TOKEN_FILE are both set; one is wanted".into());
        }
        (Some(given), None) => {
            let token = token(given.expose()).map_err(|error| wrong("TRICOT_CONSUL_TOKEN", &error))?;
            return Ok(Ok(Some(Token::Given(token))));
        }
        (None, Some(path)) => return Ok(from_file("TRICOT_CONSUL_TOKEN_FILE", path)),
        (None, None) => {}
    }
    // The file comes first for Consul's own tools, too.
    let set = |name: &str| variable(OsStr::new(name)).filter(|value| !value.is_empty());
    if let Some(path) = set("CONSUL_HTTP_TOKEN_FILE") {
        return Ok(from_file("CONSUL_HTTP_TOKEN_FILE", Path::new(&path)));
    }
    let Some(given) = set("CONSUL_HTTP_TOKEN") else {
        return Ok(Ok(None));
    };
    let token = token(&given.to_string_lossy()).map_err(|error| wrong("CONSUL_HTTP_TOKEN", &error))?;
    Ok(Ok(Some(Token::Given(token))))
}

fn wrong(variable: &str, error: &TokenError) -> String {
    format!("{variable}: {}", chain(error))
}

/// A token that can be sent in a header.
fn token(text: &str) -> Result<Secret<String>, TokenError> {
    let text = text.trim();
    if text.is_empty() {
        Err(TokenError::Empty)
    } else if text.len() as u64 > MOST_TOKEN || !text.bytes().all(|b| b.is_ascii_graphic()) {
        Err(TokenError::NotVisible)
    } else {
        Ok(Secret::new(text.to_owned()))
    }
}

/// Tokens are 36 bytes, those that stand for an identity a few KB.
const MOST_TOKEN: u64 = 16 * 1024;
