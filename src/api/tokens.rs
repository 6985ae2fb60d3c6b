//! Tokens, as `--auth-token` says: simple ones, which the replicas of an organisation remember, or JWTs,
//! which prove themselves.

use bytes::Bytes;
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation, decode, encode,
};
use serde::{Deserialize, Serialize};

use crate::chain::AuthOp;
use crate::types::{Digest, Height};

/// Letters of a simple token's secret part: 132 random bits.
const SECRET_LETTERS: usize = 22;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Longer tokens are nobody's.
const TOKEN_BYTES_MAX: usize = 8 << 10;

/// How a user proves himself between requests.
#[derive(Clone)]
pub struct Tokens(Kind);

#[derive(Clone)]
enum Kind {
    None,
    Simple { ttl_ms: u64 },
    Jwt(Box<Jwt>),
}

#[derive(Clone)]
struct Jwt {
    algorithm: Algorithm,
    verify: DecodingKey,
    /// None to check tokens only.
    sign: Option<EncodingKey>,
    ttl_seconds: u64,
}

/// What etcd puts into a JWT.
#[derive(Serialize, Deserialize)]
struct Claims {
    username: String,
    revision: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
}

/// The same, to be signed: whole numbers stay whole.
#[derive(Serialize)]
struct NewClaims<'a> {
    exp: u64,
    revision: u64,
    username: &'a str,
}

/// What a JWT's keys are given as.
#[derive(Default)]
pub struct JwtKeys {
    /// As RFC 7518 names it.
    pub method: String,
    /// PEM.
    pub public_key: Option<Vec<u8>>,
    /// PEM, or a secret's bytes for HMAC.
    pub private_key: Option<Vec<u8>>,
    /// How long a token is good.
    pub ttl_seconds: u64,
}

impl Tokens {
    /// None are given out or taken.
    #[must_use]
    pub fn none() -> Self {
        Self(Kind::None)
    }

    /// Random ones, void after this time unused.
    #[must_use]
    pub fn simple_for(ttl_ms: u64) -> Self {
        Self(Kind::Simple { ttl_ms })
    }

    /// Signed ones.
    ///
    /// # Errors
    /// What is wrong with method or keys; etcd ends the start for the same.
    pub fn jwt(keys: &JwtKeys) -> Result<Self, String> {
        let algorithm: Algorithm =
            keys.method.parse().map_err(|_| format!("unknown sign-method {:?}", keys.method))?;
        let family = [AlgorithmFamily::Hmac, AlgorithmFamily::Rsa, AlgorithmFamily::Ec]
            .into_iter()
            .find(|family| family.algorithms().contains(&algorithm))
            .unwrap_or(AlgorithmFamily::Ed);
        let bad = |which: &str, why: jsonwebtoken::errors::Error| format!("{which}: {why}");
        let signer = |pem: &Vec<u8>| match family {
            AlgorithmFamily::Hmac => Ok(EncodingKey::from_secret(pem)),
            AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(pem),
            AlgorithmFamily::Ec => EncodingKey::from_ec_pem(pem),
            AlgorithmFamily::Ed => EncodingKey::from_ed_pem(pem),
        };
        let verifier = |pem: &Vec<u8>| match family {
            AlgorithmFamily::Hmac => Ok(DecodingKey::from_secret(pem)),
            AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem),
            AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem),
            AlgorithmFamily::Ed => DecodingKey::from_ed_pem(pem),
        };
        let private = keys.private_key.as_ref().filter(|pem| !pem.is_empty());
        let public = match family {
            AlgorithmFamily::Hmac => private,
            _ => keys.public_key.as_ref(),
        };
        let public = public.ok_or("missing key data: pub-key, or priv-key for HMAC")?;
        let jwt = Jwt {
            algorithm,
            verify: verifier(public).map_err(|why| bad("pub-key", why))?,
            sign: private.map(signer).transpose().map_err(|why| bad("priv-key", why))?,
            ttl_seconds: keys.ttl_seconds,
        };
        if jwt.sign.is_some() {
            let probe = jwt.issue("probe", 1, u64::MAX / 4).map_err(|why| bad("priv-key", why))?;
            jwt.claims(&probe).ok_or("public and private keys don't match")?;
        }
        Ok(Self(Kind::Jwt(Box::new(jwt))))
    }

    /// Time to live of an unused simple token.
    pub(super) fn ttl_ms(&self) -> u64 {
        match self.0 {
            Kind::Simple { ttl_ms } => ttl_ms,
            _ => 0,
        }
    }

    /// User and auth revision that a valid JWT claims.
    pub fn claims(&self, token: &str) -> Option<(Bytes, u64)> {
        match &self.0 {
            Kind::Jwt(jwt) if token.len() <= TOKEN_BYTES_MAX => jwt.claims(token),
            _ => None,
        }
    }

    /// The digest of a simple token's secret part, and the height it names.
    pub fn simple(&self, token: &str) -> Option<(Digest, u64)> {
        let Kind::Simple { .. } = self.0 else { return None };
        let (secret, height) = token.split_once('.').filter(|_| token.len() <= 256)?;
        Some((AuthOp::token_digest(secret.as_bytes()), height.parse().ok()?))
    }

    /// A signed token, if that is what is given out; an error without a key to sign with.
    pub fn sign(&self, user: &str, revision: u64, now: u64) -> Option<Result<String, ()>> {
        match &self.0 {
            Kind::Jwt(jwt) => Some(jwt.issue(user, revision, now).map_err(|_| ())),
            _ => None,
        }
    }

    /// Whether any are given out.
    pub(super) fn given_out(&self) -> bool {
        !matches!(self.0, Kind::None)
    }
}

impl Jwt {
    fn issue(&self, user: &str, revision: u64, now: u64) -> jsonwebtoken::errors::Result<String> {
        let key = self.sign.as_ref();
        let key = key.ok_or(jsonwebtoken::errors::ErrorKind::InvalidKeyFormat)?;
        let exp = now.saturating_add(self.ttl_seconds);
        let claims = NewClaims { exp, revision, username: user };
        encode(&Header::new(self.algorithm), &claims, key)
    }

    /// As Go's parser: times are checked if they are there, without leeway.
    fn claims(&self, token: &str) -> Option<(Bytes, u64)> {
        let mut validation = Validation::new(self.algorithm);
        validation.required_spec_claims.clear();
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        let claims = decode::<Claims>(token, &self.verify, &validation).ok()?.claims;
        if claims.username.len() > AuthOp::NAME_BYTES_MAX {
            return None;
        }
        Some((claims.username.into(), whole(claims.revision)?))
    }
}

/// Claims are JSON, whose numbers etcd reads as floats.
fn whole(number: f64) -> Option<u64> {
    number.is_finite().then(|| format!("{:.0}", number.trunc()).parse().ok()).flatten()
}

/// A simple token's secret part.
pub(super) fn secret() -> Option<String> {
    let mut random = [0; SECRET_LETTERS];
    getrandom::fill(&mut random).ok()?;
    Some(random.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 63)])).collect())
}

/// A simple token: the secret, and the height of the block that made it known, as etcd appends the index.
pub(super) fn simple_token(secret: &str, height: Height) -> String {
    format!("{secret}.{}", height.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of this test alone.
    const PRIVATE: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgDNJYZrLVrAXEdUy7
VV91f6rulXXUB2Ld5qEa6scAjWOhRANCAAS2OOZI5nAIYuIg+j0ZgSkMa1Oh4/cW
CI0JDlpa4H9DqUoUQASPdFnRh+jZ86PNW4HJdMHoRxT7X0p6h40Gy5yn
-----END PRIVATE KEY-----
";
    const PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEtjjmSOZwCGLiIPo9GYEpDGtToeP3
FgiNCQ5aWuB/Q6lKFEAEj3RZ0Yfo2fOjzVuByXTB6EcU+19KeoeNBsucpw==
-----END PUBLIC KEY-----
";
    const OTHER_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE212w0ICvdrzB4r/w/Ml+jqcvInHv
VgMTXOcPJSEXD0Mdc/eFn6p2BPc1SPJMjya3e0wj+KWAdGyp1vCF4isUPg==
-----END PUBLIC KEY-----
";

    fn keys(public: Option<&str>, private: Option<&str>) -> JwtKeys {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let (public_key, private_key) = (public.map(bytes), private.map(bytes));
        JwtKeys { method: "ES256".into(), public_key, private_key, ttl_seconds: 60 }
    }

    const FAR: u64 = 4_000_000_000;

    #[test]
    fn a_signed_token_says_who_and_since_which_revision() {
        let tokens = Tokens::jwt(&keys(Some(PUBLIC), Some(PRIVATE))).expect("a pair");
        let token = tokens.sign("alice", 7, FAR).expect("signs").expect("signed");
        assert_eq!(tokens.claims(&token), Some((Bytes::from_static(b"alice"), 7)));
        assert_eq!(tokens.simple(&token), None);
        let expired = tokens.sign("alice", 7, 1).expect("signs").expect("signed");
        assert_eq!(tokens.claims(&expired), None);
        let mut changed = token.clone().into_bytes();
        let last = changed.len() - 2;
        changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
        assert_eq!(tokens.claims(str::from_utf8(&changed).expect("ASCII")), None);
        let verifier = Tokens::jwt(&keys(Some(PUBLIC), None)).expect("a public key");
        assert_eq!(verifier.claims(&token), Some((Bytes::from_static(b"alice"), 7)));
        assert_eq!(verifier.sign("alice", 7, FAR), Some(Err(())));
        let other = Tokens::jwt(&keys(Some(OTHER_PUBLIC), None)).expect("a public key");
        assert_eq!(other.claims(&token), None);
    }

    /// The algorithm is the configured one, whatever a token says of itself.
    #[test]
    fn a_public_key_is_no_hmac_secret() {
        let tokens = Tokens::jwt(&keys(Some(PUBLIC), None)).expect("a public key");
        let secret = Some(PUBLIC.as_bytes().to_vec());
        let hmac = JwtKeys { method: "HS256".into(), private_key: secret, ..keys(None, None) };
        let forger = Tokens::jwt(&hmac).expect("a secret");
        let forged = forger.sign("root", 7, FAR).expect("signs").expect("signed");
        assert!(forger.claims(&forged).is_some());
        assert_eq!(tokens.claims(&forged), None);
    }

    #[test]
    fn keys_that_do_not_fit_end_the_start() {
        assert!(Tokens::jwt(&keys(Some(OTHER_PUBLIC), Some(PRIVATE))).is_err());
        assert!(Tokens::jwt(&keys(None, Some(PRIVATE))).is_err());
        assert!(Tokens::jwt(&keys(Some("no key"), None)).is_err());
        assert!(Tokens::jwt(&JwtKeys { method: "none".into(), ..keys(None, None) }).is_err());
    }

    #[test]
    fn a_simple_token_is_a_secret_and_a_height() {
        let tokens = Tokens::simple_for(1000);
        let secret = secret().expect("random");
        let token = simple_token(&secret, Height(12));
        let digest = AuthOp::token_digest(secret.as_bytes());
        assert_eq!(tokens.simple(&token), Some((digest, 12)));
        for wrong in ["", "a", "a.", "a.b", ".", "a.-1", "a.18446744073709551616", "a.1.2"] {
            assert_eq!(tokens.simple(wrong), None, "{wrong}");
        }
        assert_eq!(Tokens::none().simple(&token), None);
    }
}
