//! JSON Web Tokens (RFC 7519) that clients give as passwords. A key is for one algorithm, which the token must name: nothing
//! that a token says of itself chooses how it is checked.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use newtmq_access::Acl;
use newtmq_base::Instant;
use newtmq_node::Grant;
use serde_json::Value;

use super::FileError;
use crate::config::Jwt as Config;

/// Keys of tokens, and what tokens must say.
pub(super) struct Jwt {
    keys: Vec<Key>,
    claims: Vec<(String, String)>,
}

struct Key {
    /// The name that tokens call it by; without one it is for all of its algorithm.
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Jwt({} keys)", self.keys.len())
    }
}

/// Who gives a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bearer<'a> {
    pub(super) client: &'a str,
    pub(super) username: Option<&'a str>,
}

impl Jwt {
    /// Reads the keys; none if no token is looked at.
    pub(super) fn read(config: &Config) -> Result<Option<Jwt>, FileError> {
        if !config.is_on() {
            return Ok(None);
        }
        let mut keys = Vec::new();
        if let Some(secret) = &config.secret {
            let secret = secret.reveal().as_bytes();
            if secret.len() < SECRET_BYTES_MIN {
                tracing::warn!("jwt.secret has less than {SECRET_BYTES_MIN} bytes: whoever has a token may guess it");
            }
            keys.push(Key { id: None, algorithm: Algorithm::HS256, key: DecodingKey::from_secret(secret) });
        }
        if let Some(file) = &config.public_key {
            keys.push(of_pem(file)?);
        }
        if let Some(file) = &config.jwks_file {
            keys.extend(of_set(file)?);
        }
        Ok(Some(Jwt { keys, claims: config.verify_claims.clone() }))
    }

    /// What a token grants; why not, if it grants nothing. `seconds` is the wall clock's time, `now` the node's at that moment.
    pub(super) fn check(
        &self,
        token: &str,
        who: Bearer<'_>,
        seconds: u64,
        now: Instant,
    ) -> Result<Grant, &'static str> {
        let header = decode_header(token).map_err(|_| "its header cannot be read")?;
        let of_name = |key: &&Key| key.id.is_none() || key.id == header.kid || header.kid.is_none();
        let fitting = self.keys.iter().filter(|key| key.algorithm == header.alg).filter(of_name);
        let claims = fitting.take(TRIES_MAX).find_map(|key| self.verified(token, key)).ok_or("no key has signed it")?;
        times_are_right(&claims, seconds)?;
        for (name, wanted) in &self.claims {
            let wanted = match wanted.as_str() {
                "%u" => who.username.ok_or("it is about a user name, and there is none")?,
                "%c" => who.client,
                text => text,
            };
            if !says(&claims[name], wanted) {
                return Err("a claim is not what it must be");
            }
        }
        let until = claims.get("exp").and_then(Value::as_f64).map(|exp| {
            let left = (exp - seconds as f64).clamp(0.0, FAR_SECONDS);
            now + Duration::from_secs_f64(left)
        });
        Ok(Grant { rules: rules(&claims)?.map(Arc::new), superuser: false, until })
    }

    fn verified(&self, token: &str, key: &Key) -> Option<Value> {
        let mut validation = Validation::new(key.algorithm);
        // Times are checked below, with the clock of the node; who it is for is a claim like others.
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        validation.required_spec_claims.clear();
        let claims = decode::<Value>(token, &key.key, &validation).ok()?.claims;
        claims.is_object().then_some(claims)
    }
}

/// Whether it could be a token at all: three parts, of which the first is an object.
pub(super) fn looks_like_one(password: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(password).ok()?;
    (text.starts_with("eyJ") && text.len() <= TOKEN_BYTES_MAX && text.split('.').count() == 3).then_some(text)
}

fn times_are_right(claims: &Value, seconds: u64) -> Result<(), &'static str> {
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(time) => time.as_f64().map(Some).ok_or("a time of it is no number"),
    };
    let now = seconds as f64;
    if time("exp")?.is_some_and(|exp| exp <= now) {
        return Err("it has expired");
    }
    if time("nbf")?.is_some_and(|nbf| nbf > now + LEEWAY_SECONDS) {
        return Err("its time has not come yet");
    }
    Ok(())
}

/// A claim is a text, or a list with it (as `aud` may be).
fn says(claim: &Value, wanted: &str) -> bool {
    match claim {
        Value::String(text) => text == wanted,
        Value::Array(all) => all.iter().any(|one| one.as_str() == Some(wanted)),
        _ => false,
    }
}

/// Rules of a token: `acl` with `pub`, `sub` and `all`, or `pub` and `sub` beside the other claims, unless `sub` is the subject. None if it has no lists.
fn rules(claims: &Value) -> Result<Option<Acl>, &'static str> {
    let lists = match claims.get("acl") {
        Some(acl @ Value::Object(_)) => acl,
        Some(_) => return Err("its acl is no object"),
        None if claims["pub"].is_array() || claims["sub"].is_array() => claims,
        None => return Ok(None),
    };
    let list = |name: &str| match lists.get(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(all)) => {
            all.iter().map(|topic| topic.as_str().ok_or("a topic of its acl is no text")).collect()
        }
        // The subject (RFC 7519, section 4.1.2).
        Some(Value::String(_)) if name == "sub" && std::ptr::eq(lists, claims) => Ok(Vec::new()),
        Some(_) => Err("a part of its acl is no list"),
    };
    let (mut publish, mut subscribe, all) = (list("pub")?, list("sub")?, list("all")?);
    publish.extend(&all);
    subscribe.extend(&all);
    if publish.len() + subscribe.len() > TOPICS_MAX {
        return Err("its acl has too many topics");
    }
    Acl::only(&publish, &subscribe).map(Some).map_err(|_| "a topic of its acl is none")
}

fn read(file: &Path) -> Result<Vec<u8>, FileError> {
    let io = |error| FileError::Io { file: file.to_owned(), error };
    let size = fs::metadata(file).map_err(io)?.len();
    if size > KEYS_BYTES_MAX {
        return Err(wrong(file, "it is larger than 1 MiB"));
    }
    fs::read(file).map_err(io)
}

fn wrong(file: &Path, why: &'static str) -> FileError {
    FileError::Key { file: PathBuf::from(file), why }
}

fn of_pem(file: &Path) -> Result<Key, FileError> {
    let pem = read(file)?;
    let of = |key: Result<DecodingKey, _>, algorithm| key.ok().map(|key| Key { id: None, algorithm, key });
    let rsa = of(DecodingKey::from_rsa_pem(&pem), Algorithm::RS256);
    let key = rsa.or_else(|| of(DecodingKey::from_ec_pem(&pem), Algorithm::ES256));
    key.ok_or_else(|| wrong(file, "it is no public key of RSA or of the curve P-256 in PEM"))
}

fn of_set(file: &Path) -> Result<Vec<Key>, FileError> {
    let set: JwkSet =
        serde_json::from_slice(&read(file)?).map_err(|_| wrong(file, "it is no set of keys (JWKS) in JSON"))?;
    let mut keys = Vec::new();
    for jwk in &set.keys {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(of) if of.curve == EllipticCurve::P256 => Algorithm::ES256,
            AlgorithmParameters::OctetKey(_) => Algorithm::HS256,
            AlgorithmParameters::EllipticCurve(_) | AlgorithmParameters::OctetKeyPair(_) => continue,
        };
        let named = match jwk.common.key_algorithm {
            None => true,
            Some(KeyAlgorithm::RS256) => algorithm == Algorithm::RS256,
            Some(KeyAlgorithm::ES256) => algorithm == Algorithm::ES256,
            Some(KeyAlgorithm::HS256) => algorithm == Algorithm::HS256,
            Some(_) => false,
        };
        let signs = !matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption));
        if named && signs {
            let key = DecodingKey::from_jwk(jwk).map_err(|_| wrong(file, "a key of it cannot be used"))?;
            keys.push(Key { id: jwk.common.key_id.clone(), algorithm, key });
        }
    }
    if keys.is_empty() {
        return Err(wrong(file, "it has no key of HS256, RS256 or ES256"));
    }
    Ok(keys)
}

/// Of HS256 (RFC 7518, section 3.2).
const SECRET_BYTES_MIN: usize = 32;
/// Longest token.
const TOKEN_BYTES_MAX: usize = 16_384;
/// Most topics of a token.
const TOPICS_MAX: usize = 1000;
/// Largest file of keys.
const KEYS_BYTES_MAX: u64 = 1 << 20;
/// Most keys that are tried for a token that names none.
const TRIES_MAX: usize = 8;
/// So much a clock of who makes tokens may be ahead.
const LEEWAY_SECONDS: f64 = 5.0;
/// Later than this is as good as never.
const FAR_SECONDS: f64 = 100.0 * 365.0 * 86_400.0;

#[cfg(all(test, not(madsim)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;
    use crate::config::Secret;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const NOW: u64 = 1_800_000_000;

    fn jwt(claims: &[(&str, &str)]) -> Jwt {
        let verify_claims = claims.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let config = Config { secret: Some(Secret::new(SECRET)), verify_claims, ..Config::default() };
        Jwt::read(&config).unwrap().unwrap()
    }

    fn token(claims: &Value) -> String {
        encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
    }

    fn check(jwt: &Jwt, token: &str) -> Result<Grant, &'static str> {
        let who = Bearer { client: "c", username: Some("u") };
        jwt.check(token, who, NOW, Instant::START)
    }

    #[test]
    fn what_a_token_says_counts() {
        let jwt = jwt(&[("username", "%u"), ("aud", "mqtt")]);
        let base = json!({ "username": "u", "aud": "mqtt" });
        let with = |name: &str, value: Value| {
            let mut claims = base.clone();
            claims[name] = value;
            claims
        };
        for (claims, outcome) in [
            (base.clone(), Ok(())),
            (with("aud", json!(["x", "mqtt"])), Ok(())),
            (with("aud", json!("x")), Err("a claim is not what it must be")),
            (with("username", json!("v")), Err("a claim is not what it must be")),
            (with("username", json!("%u")), Err("a claim is not what it must be")),
            (with("username", json!(null)), Err("a claim is not what it must be")),
            (with("exp", json!(NOW)), Err("it has expired")),
            (with("exp", json!(NOW + 1)), Ok(())),
            (with("exp", json!("never")), Err("a time of it is no number")),
            (with("exp", json!(1e300)), Ok(())),
            (with("nbf", json!(NOW + 100)), Err("its time has not come yet")),
            (with("nbf", json!(NOW)), Ok(())),
            (with("acl", json!("all")), Err("its acl is no object")),
            (with("acl", json!({ "pub": ["a/#/b"] })), Err("a topic of its acl is none")),
            (with("acl", json!({ "pub": [1] })), Err("a topic of its acl is no text")),
            (with("acl", json!({ "pub": "#" })), Err("a part of its acl is no list")),
            (with("acl", json!({ "all": vec!["a"; 501] })), Err("its acl has too many topics")),
        ] {
            assert_eq!(check(&jwt, &token(&claims)).map(drop), outcome, "{claims}");
        }
        let nobody = Bearer { client: "u", username: None };
        assert!(jwt.check(&token(&base), nobody, NOW, Instant::START).is_err());
    }

    #[test]
    fn a_token_ends_and_has_rules() {
        let jwt = jwt(&[]);
        let grant =
            check(&jwt, &token(&json!({ "exp": NOW + 60, "acl": { "pub": ["up/%c"], "all": ["x"] } }))).unwrap();
        assert_eq!(grant.until, Some(Instant::START + Duration::from_secs(60)));
        assert_eq!(grant.rules.as_deref(), Some(&Acl::only(&["up/%c", "x"], &["x"]).unwrap()));
        assert!(!grant.superuser);
        // A list of its own, beside the subject.
        let plain = check(&jwt, &token(&json!({ "sub": "u", "pub": ["a"] }))).unwrap();
        assert_eq!(plain.rules.as_deref(), Some(&Acl::only(&["a"], &[]).unwrap()));
        assert_eq!(check(&jwt, &token(&json!({ "sub": "u" }))).unwrap(), Grant::default());
    }

    #[test]
    fn what_is_not_signed_by_a_key_is_nothing() {
        let jwt = jwt(&[]);
        let good = token(&json!({ "username": "u" }));
        assert!(check(&jwt, &good).is_ok());
        let parts: Vec<&str> = good.split('.').collect();
        let none = "eyJhbGciOiJub25lIn0";
        let other = encode(&Header::default(), &json!({}), &EncodingKey::from_secret(b"another")).unwrap();
        let longer = Header::new(Algorithm::HS512);
        let longer = encode(&longer, &json!({}), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
        for bad in [
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}.{}x", parts[0], parts[1], parts[2]),
            other,
            longer,
            token(&json!("text")),
            String::new(),
            "eyJ..".to_owned(),
        ] {
            assert!(check(&jwt, &bad).is_err(), "{bad}");
        }
        assert_eq!(looks_like_one(b"eyJ.a.b"), Some("eyJ.a.b"));
        for no in [&b"password"[..], b"eyJ.a", b"eyJ.a.b.c", b"eyJ\xff.a.b"] {
            assert_eq!(looks_like_one(no), None);
        }
    }

    /// A public key is known to everybody: as a secret it signs nothing.
    #[test]
    fn a_public_key_is_no_secret() {
        let dir = std::env::temp_dir().join(format!("newtmq-jwt-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let (public, file) = (pair.public_key_pem(), dir.join("key.pem"));
        fs::write(&file, &public).unwrap();
        let config = Config { public_key: Some(file.clone()), ..Config::default() };
        let jwt = Jwt::read(&config).unwrap().unwrap();
        let private = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        let signed = encode(&Header::new(Algorithm::ES256), &json!({}), &private).unwrap();
        assert!(check(&jwt, &signed).is_ok());
        let forged = encode(&Header::default(), &json!({}), &EncodingKey::from_secret(public.as_bytes())).unwrap();
        assert!(check(&jwt, &forged).is_err());
        for (text, why) in [
            ("nothing", "it is no public key of RSA or of the curve P-256 in PEM"),
            (
                "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
                "it is no public key of RSA or of the curve P-256 in PEM",
            ),
        ] {
            fs::write(&file, text).unwrap();
            let error = Jwt::read(&config).unwrap_err().to_string();
            assert_eq!(error, format!("{}: {why}", file.display()));
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_set_of_keys() {
        use base64::Engine as _;
        let dir = std::env::temp_dir().join(format!("newtmq-jwks-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("keys.json");
        let text = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let set = json!({ "keys": [
            { "kty": "oct", "kid": "one", "k": text(SECRET.as_bytes()) },
            { "kty": "oct", "kid": "two", "k": text(b"another-secret-of-thirty-two-bytes") },
        ] });
        fs::write(&file, set.to_string()).unwrap();
        let config = Config { jwks_file: Some(file.clone()), ..Config::default() };
        let jwt = Jwt::read(&config).unwrap().unwrap();
        for (kid, good) in [(None, true), (Some("one"), true), (Some("two"), false), (Some("three"), false)] {
            let header = Header { kid: kid.map(str::to_owned), ..Header::default() };
            let token = encode(&header, &json!({}), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
            assert_eq!(check(&jwt, &token).is_ok(), good, "{kid:?}");
        }
        for text in ["", "{}", "{\"keys\":[]}"] {
            fs::write(&file, text).unwrap();
            assert!(Jwt::read(&config).is_err(), "{text}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
