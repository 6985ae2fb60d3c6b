use althing::api::{JwtKeys, Tokens};
use althing::config::{Settings, Values};

use crate::targets::Choices;

/// Whatever a configuration file, a command line or an environment says: settings, or an error that names
/// what is wrong with them.
pub fn config_parse(data: &[u8]) {
    let mut choices = Choices::new(data);
    let length = usize::from(choices.byte()) * 4;
    let yaml = String::from_utf8_lossy(choices.bytes(length)).into_owned();
    if let Ok(values) = Values::from_yaml(&yaml) {
        judge(Settings::from_values(values));
    }
    let rest = String::from_utf8_lossy(choices.bytes(usize::MAX)).into_owned();
    let (variables, arguments): (Vec<&str>, Vec<&str>) = rest
        .split('\n')
        .partition(|line| line.starts_with("ETCD_") || line.starts_with("ALTHING_"));
    // A file named there would be read.
    let named = |text: &&str| !text.to_ascii_lowercase().replace('_', "-").contains("config-file");
    let arguments: Vec<String> = arguments.into_iter().filter(named).map(str::to_owned).collect();
    let pair = |line: &str| {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        (name.to_owned(), value.to_owned())
    };
    let variables: Vec<_> = variables.into_iter().filter(named).map(pair).collect();
    judge(Settings::parse(&arguments, &variables));
}

fn judge(settings: Result<Settings, althing::config::SettingsError>) {
    match settings {
        Ok(settings) => {
            let urls = settings.client.listen.iter().chain(&settings.client.listen_http);
            for url in urls.chain(&settings.peer.listen) {
                assert!(url.check_bindable().is_ok(), "{url} is listened to");
                let again = althing::config::ListenUrl::parse(&url.to_string());
                assert_eq!(again.as_ref(), Ok(url), "a URL is written as it is read");
            }
            assert!(!settings.log.outputs.is_empty(), "lines go somewhere");
        }
        Err(why) => assert!(!why.to_string().is_empty()),
    }
}

/// A token that nobody gave out lets nobody in, and one that was given out survives only whole.
pub fn auth_token_parse(data: &[u8]) {
    let mut choices = Choices::new(data);
    let keys = JwtKeys {
        method: "HS256".to_owned(),
        public_key: None,
        private_key: Some(b"of this target alone, and long enough".to_vec()),
        ttl_seconds: 60,
    };
    let jwt = Tokens::jwt(&keys).expect("a secret");
    let simple = Tokens::simple_for(1000);
    let (at, bent) = (usize::from(choices.short()), choices.byte());
    let text = String::from_utf8_lossy(choices.bytes(usize::MAX)).into_owned();
    assert_eq!(jwt.claims(&text), None, "nobody signed {text:?}");
    assert_eq!(Tokens::none().simple(&text), None);
    if let Some((_, height)) = simple.simple(&text) {
        let (_, written) = text.rsplit_once('.').expect("a secret and a height");
        assert_eq!(written.parse(), Ok(height));
    }
    const FAR: u64 = 4_000_000_000;
    let good = jwt.sign("alice", 7, FAR).expect("signs").expect("signed");
    assert!(
        jwt.claims(&good).is_some_and(|(user, revision)| &user[..] == b"alice" && revision == 7)
    );
    let mut bytes = good.clone().into_bytes();
    let at = at % bytes.len();
    bytes[at] ^= bent;
    // The last letter of base64 has bits that mean nothing.
    if at + 1 < bytes.len()
        && let Ok(changed) = String::from_utf8(bytes)
        && changed != good
    {
        assert_eq!(jwt.claims(&changed), None, "{changed} was not signed");
    }
    // What the flag takes is told before anything is started.
    judge(Settings::parse(&[format!("--auth-token={text}")], &[]));
}
