//! Property twins of the fuzz targets (`conformance::targets`): the same functions, driven by chance.

use conformance::sim::liars::Lie;
use conformance::sim::plan::{Plan, SECOND};
use conformance::sim::run;
use conformance::targets::{self, Target};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Bytes that stand for a row of decisions, many of them small: what a fuzzer would find by itself.
fn decisions(most: usize) -> impl Strategy<Value = Vec<u8>> {
    let one = prop_oneof![3 => 0_u8..16, 2 => any::<u8>()];
    prop::collection::vec(one, 0..most)
}

/// Runs a target on `cases` rows of up to `most` bytes.
fn twin(target: Target, cases: u32, most: usize) {
    let config = ProptestConfig::with_cases(cases);
    let mut runner = TestRunner::new(config);
    let result = runner.run(&decisions(most), |data| {
        target(&data);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// The list and what is driven by coverage are the same: whoever adds one adds the other.
#[cfg(feature = "server")]
#[test]
fn every_target_is_driven_by_coverage_too() {
    let fuzz = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).expect("its manifest");
    let mut listed: Vec<String> = Vec::new();
    for (name, _) in targets::TARGETS {
        let path = format!("targets/{name}.rs");
        let driver = std::fs::read_to_string(fuzz.join(&path))
            .unwrap_or_else(|why| panic!("conformance/fuzz/{path}: {why}"));
        assert!(driver.contains(&format!("conformance::targets::{name}(data)")), "{driver}");
        assert!(manifest.contains(&format!("path = \"{path}\"")), "{name} is a program");
        listed.push(format!("{name}.rs"));
    }
    let folder = std::fs::read_dir(fuzz.join("targets")).expect("a folder");
    let names = folder.map(|entry| entry.expect("an entry").file_name());
    let mut driven: Vec<String> =
        names.map(|name| name.into_string().expect("a plain name")).collect();
    listed.sort();
    driven.sort();
    assert_eq!(listed, driven, "conformance::targets::TARGETS and conformance/fuzz/targets");
}

#[test]
fn every_message_has_one_encoding() {
    twin(targets::consensus_msg_roundtrip, 2000, 300);
}

#[test]
fn a_real_message_with_a_byte_changed_has_one_encoding_or_none() {
    let lines = include_str!("../../vectors/message.hex").lines();
    let mut tried = 0;
    for line in lines.filter_map(|line| line.split_whitespace().last()) {
        let Some(bytes) = unhex(line) else { continue };
        targets::consensus_msg_roundtrip(&bytes);
        tried += 1;
        for at in 0..bytes.len().min(2000) {
            let mut bent = bytes.clone();
            bent[at] ^= 1 << (at % 8);
            targets::consensus_msg_roundtrip(&bent);
            targets::consensus_msg_roundtrip(&bytes[..at]);
        }
    }
    assert!(tried > 20, "only {tried} golden messages were read");
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let pairs = digits.filter(|digits| digits.len() % 2 == 0 && !digits.is_empty())?;
    Some(pairs.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[test]
fn any_certificate_is_judged_as_a_second_reading_judges_it() {
    twin(targets::cert_verify, 1000, 60);
}

#[test]
fn one_liar_of_four_breaks_nobody_whatever_it_says_and_when() {
    twin(targets::core_step, 60, 600);
}

#[test]
fn any_bytes_for_segments_are_an_error_or_an_empty_log() {
    twin(targets::log_open, 200, 400);
}

#[test]
fn a_log_with_bytes_changed_is_refused_or_shows_a_beginning_of_itself() {
    twin(targets::log_torn, 300, 60);
}

#[test]
fn a_checkpoint_with_bytes_changed_never_passes_for_another() {
    twin(targets::checkpoint_install, 300, 60);
}

#[test]
fn only_chunks_that_the_manifest_names_are_kept() {
    twin(targets::transfer_session, 200, 300);
}

#[test]
fn a_range_holds_the_keys_that_etcd_says() {
    twin(targets::range_normalise, 5000, 40);
}

#[test]
fn transactions_answer_as_a_store_written_on_a_page() {
    twin(targets::txn_apply_diff, 1500, 300);
}

#[test]
fn what_is_allowed_is_allowed_key_by_key() {
    twin(targets::rbac_diff, 1500, 250);
}

#[cfg(feature = "server")]
#[test]
fn any_request_is_answered_and_the_next_one_served() {
    twin(targets::grpc_to_handler, 600, 120);
}

#[cfg(feature = "server")]
#[test]
fn a_bent_token_lets_nobody_in() {
    twin(targets::auth_token_parse, 500, 60);
}

/// A command line or a file of flags that exist, with values that may fit.
#[cfg(feature = "server")]
fn lines(colon: bool) -> impl Strategy<Value = String> {
    let names: Vec<&str> = althing::config::FLAGS.iter().map(|flag| flag.name).collect();
    let values = vec![
        "true",
        "1",
        "-1",
        "0x10",
        "5s",
        "http://127.0.0.1:1",
        "https://[::1]:2379",
        "unix://a",
        "a=b",
        "simple",
        "jwt,sign-method=ES256",
        "stderr",
        "TLS1.3",
        "[a, b]",
        "{x: 1}",
        "5000000000",
        "existing",
        "a,b,,c",
        "",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "99999999999999999999",
        "*",
        "\u{202e}",
    ];
    let line = (prop::sample::select(names), prop::sample::select(values)).prop_map(
        move |(name, value)| {
            if colon { format!("{name}: {value}") } else { format!("--{name}={value}") }
        },
    );
    prop::collection::vec(line, 0..6).prop_map(|lines| lines.join("\n"))
}

#[cfg(feature = "server")]
#[test]
fn any_settings_are_good_or_refused_with_a_reason() {
    let mut runner = TestRunner::new(ProptestConfig::with_cases(4000));
    let result = runner.run(&(lines(true), lines(false)), |(yaml, arguments)| {
        let mut yaml = yaml.into_bytes();
        yaml.resize(yaml.len().min(1020).next_multiple_of(4), b'\n');
        let mut data = vec![u8::try_from(yaml.len() / 4).expect("at most 255")];
        data.extend(yaml);
        data.extend(arguments.into_bytes());
        targets::config_parse(&data);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    twin(targets::config_parse, 500, 300);
}

#[cfg(feature = "server")]
#[test]
fn any_bytes_of_a_peer_are_frames_within_their_limits_or_an_error() {
    twin(targets::peer_frame_decode, 1000, 600);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// `sim_disrupter`, with chance in place of a fuzzer's bytes: whatever a liar sends to replicas in
    /// whatever state, nobody panics, votes twice or accuses an honest one.
    #[test]
    fn any_message_in_any_state_breaks_nobody(seed in any::<u32>(), wild in any::<bool>()) {
        let mut plan = Plan::draw(u64::from(seed));
        plan.n = 4;
        plan.twins = 0;
        plan.stay_down = 0;
        plan.wrong_clock_ms = 0;
        plan.large_values = 0;
        plan.lies = vec![if wild { Lie::Wild } else { Lie::Garbler }];
        plan.faulty_for = SECOND;
        let failed = run(plan, false).err().map(|failure| failure.what);
        prop_assert_eq!(failed, None);
    }
}
