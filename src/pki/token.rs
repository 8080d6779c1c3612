//! Join tokens: `K10<hash of the CA bundle>::<role>:<secret>`, as k3s writes them.
//!
//! The hash lets a machine that joins know that it talks to the right cluster before it shows the secret. A bare secret
//! is accepted too, and joins whatever cluster answers.

use std::fmt;

use rand::RngExt;

use crate::authority::ca_hash;

const PREFIX: &str = "K10";
const SECRET_BYTES: usize = 16;

/// What the bearer of a token may join as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Server,
    Node,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Role::Server => "server",
            Role::Node => "node",
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// `None` for a bare secret.
    pub ca_hash: Option<String>,
    pub role: Role,
    pub secret: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error(
        "the token is malformed: it should look like K10<64 hex digits>::node:<secret>; the server has it in server/node-token of its data directory"
    )]
    Malformed,
    #[error(
        "the token belongs to another cluster: it names the CA {expected} and the server has {found}; take the token from that server again"
    )]
    WrongAuthority { expected: String, found: String },
}

impl Token {
    /// A new secret for the cluster with this CA.
    pub fn new(role: Role, ca_hash: String) -> Token {
        let mut secret = [0u8; SECRET_BYTES];
        rand::rng().fill(&mut secret);
        Token { ca_hash: Some(ca_hash), role, secret: hex::encode(secret) }
    }

    pub fn parse(text: &str) -> Result<Token, TokenError> {
        let text = text.trim();
        let Some(rest) = text.strip_prefix(PREFIX) else {
            let bare = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != ':');
            return if bare {
                Ok(Token { ca_hash: None, role: Role::Node, secret: text.to_owned() })
            } else {
                Err(TokenError::Malformed)
            };
        };
        let (hash, credentials) = rest.split_once("::").ok_or(TokenError::Malformed)?;
        let (role, secret) = credentials.split_once(':').ok_or(TokenError::Malformed)?;
        let role = match role {
            "server" => Role::Server,
            "node" => Role::Node,
            _ => return Err(TokenError::Malformed),
        };
        if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) || secret.is_empty() {
            return Err(TokenError::Malformed);
        }
        Ok(Token { ca_hash: Some(hash.to_ascii_lowercase()), role, secret: secret.to_owned() })
    }

    /// Checks that a CA bundle is the one that the token names.
    pub fn check_authority(&self, bundle: &[u8]) -> Result<(), TokenError> {
        match &self.ca_hash {
            Some(expected) if *expected != ca_hash(bundle) => {
                Err(TokenError::WrongAuthority { expected: expected.clone(), found: ca_hash(bundle) })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ca_hash {
            Some(hash) => write!(f, "{PREFIX}{hash}::{}:{}", self.role.as_str(), self.secret),
            None => f.write_str(&self.secret),
        }
    }
}

impl fmt::Debug for Token {
    /// Without the secret: tokens end up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("ca_hash", &self.ca_hash).field("role", &self.role).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back() {
        let token = Token::new(Role::Node, ca_hash(b"ca"));
        assert_eq!(Token::parse(&format!(" {token}\n")), Ok(token.clone()));
        assert!(token.check_authority(b"ca").is_ok());
        assert!(matches!(token.check_authority(b"other"), Err(TokenError::WrongAuthority { .. })));
        assert!(!format!("{token:?}").contains(&token.secret));
    }

    #[test]
    fn malformed_tokens_are_refused() {
        for bad in ["", "K10", "K10abc::node:x", &format!("K10{}::node:", "a".repeat(64)), "a b", "a:b"] {
            assert_eq!(Token::parse(bad), Err(TokenError::Malformed), "{bad:?}");
        }
        assert_eq!(Token::parse("secret").unwrap().ca_hash, None);
    }
}
