use std::path::PathBuf;

use super::duration::go_duration_ns;
use super::flags::Values;
use super::settings::SettingsError;

/// How users prove themselves to this replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthSettings {
    /// `--auth-token`.
    pub token: TokenSettings,
    /// `--bcrypt-cost`.
    pub bcrypt_cost: u32,
    /// `--auth-token-ttl`: of an unused simple token.
    pub token_ttl_ms: u64,
}

/// The kinds of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSettings {
    /// None are given out or taken.
    None,
    /// Random ones, known to the replicas of the organisation.
    Simple,
    /// Signed ones.
    Jwt {
        /// As RFC 7518 names it.
        method: String,
        /// PEM.
        public_key: Option<PathBuf>,
        /// PEM, or a secret's bytes for HMAC.
        private_key: Option<PathBuf>,
        /// How long one is good.
        ttl_ms: u64,
    },
}

/// bcrypt's bounds and etcd's default.
const COSTS: core::ops::RangeInclusive<u64> = 4..=31;
const COST: u32 = 10;

/// etcd's DefaultTTL of a JWT.
const JWT_TTL_MS: u64 = 5 * 60 * 1000;

const SIMPLE_TTL_MS: u64 = 300 * 1000;

pub(super) fn auth(values: &Values) -> Result<AuthSettings, SettingsError> {
    // As etcd: what bcrypt cannot do becomes the default.
    let cost = values.number("bcrypt-cost").filter(|cost| COSTS.contains(cost));
    let cost = cost.and_then(|cost| u32::try_from(cost).ok()).unwrap_or(COST);
    let ttl = values.number("auth-token-ttl").filter(|seconds| *seconds > 0);
    Ok(AuthSettings {
        token: token(values.text_or_default("auth-token"))?,
        bcrypt_cost: cost,
        token_ttl_ms: ttl.map_or(SIMPLE_TTL_MS, |seconds| seconds.saturating_mul(1000)),
    })
}

/// `simple`, or `jwt,sign-method=RS256,pub-key=FILE,priv-key=FILE,ttl=10m` (etcd's decomposeOpts).
fn token(text: &str) -> Result<TokenSettings, SettingsError> {
    let wrong = |why: String| SettingsError::Invalid(format!("--auth-token: {why}"));
    let mut parts = text.split(',');
    match parts.next() {
        Some("") | None => Ok(TokenSettings::None),
        Some("simple") => Ok(TokenSettings::Simple),
        Some("jwt") => {
            let (mut method, mut public_key, mut private_key) = (None, None, None);
            let mut ttl_ms = None;
            for part in parts {
                let pair = part.split_once('=').filter(|(_, value)| !value.contains('='));
                let (name, value) = pair.ok_or_else(|| wrong(format!("{part:?} is no option")))?;
                let twice = match name {
                    "sign-method" => method.replace(value.to_owned()).is_some(),
                    "pub-key" => public_key.replace(PathBuf::from(value)).is_some(),
                    "priv-key" => private_key.replace(PathBuf::from(value)).is_some(),
                    "ttl" => {
                        let ns = go_duration_ns(value);
                        let ns = ns.ok_or_else(|| wrong(format!("{value:?} is no duration")))?;
                        ttl_ms.replace(ns / 1_000_000).is_some()
                    }
                    // etcd warns of it and goes on.
                    _ => false,
                };
                if twice {
                    return Err(wrong(format!("{name} is there twice")));
                }
            }
            let method = method.ok_or_else(|| wrong("jwt needs sign-method".to_owned()))?;
            let ttl_ms = ttl_ms.unwrap_or(JWT_TTL_MS);
            Ok(TokenSettings::Jwt { method, public_key, private_key, ttl_ms })
        }
        Some(other) => Err(wrong(format!("{other:?} is neither simple nor jwt"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_flag_is_read_as_etcd_reads_it() {
        assert_eq!(token("simple").expect("simple"), TokenSettings::Simple);
        assert_eq!(token("").expect("none"), TokenSettings::None);
        let jwt = token("jwt,pub-key=/a/p.pem,priv-key=/a/k.pem,sign-method=RS256,ttl=10m");
        let wanted = TokenSettings::Jwt {
            method: "RS256".into(),
            public_key: Some("/a/p.pem".into()),
            private_key: Some("/a/k.pem".into()),
            ttl_ms: 600_000,
        };
        assert_eq!(jwt.expect("jwt"), wanted);
        for wrong in [
            "basic",
            "jwt",
            "jwt,sign-method",
            "jwt,sign-method=RS256,sign-method=RS256",
            "jwt,sign-method=RS256,ttl=soon",
            "jwt,sign-method=a=b",
        ] {
            assert!(token(wrong).is_err(), "{wrong}");
        }
    }
}
