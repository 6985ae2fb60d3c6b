//! The commands: one file each. With etcd's flags and no subcommand the program serves, so that a
//! link named `etcd` works wherever etcd is started.

mod auto_compaction;
mod block;
mod cert;
mod certificates;
mod change;
mod compose;
mod connection;
mod demo;
mod drop_in;
mod epoch;
mod genesis;
mod http;
mod identity;
mod kv;
mod member;
mod log;
mod misbehaviour;
mod org;
mod output;
mod provenance;
mod replica;
mod serve;
mod snapshot;
mod status;
mod version;
mod voted_flags;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use output::{Failure, say};

#[derive(Parser)]
#[command(
    name = "althing",
    about = "An etcd v3 server whose replicas belong to organisations that do not trust each other",
    disable_version_flag = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 something needed is missing."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Run a replica; takes etcd's flags, see `althing --help`.
    #[command(disable_help_flag = true)]
    Serve {
        /// etcd's flags, and --genesis, --home.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<String>,
    },
    /// Run a network of four organisations on this machine.
    Demo(demo::Demo),
    /// Show view, primary, heights, roots and peers of every replica.
    Status(status::Status),
    /// Put or get one key.
    #[command(subcommand)]
    Kv(kv::Kv),
    /// Show who wrote a key last: organisation, replica, client, block.
    Blame(provenance::Blame),
    /// Show the changes of a key, newest first, and who made them.
    History(provenance::History),
    /// Show a block.
    #[command(subcommand)]
    Block(block::Block),
    /// Look at a data directory offline.
    #[command(subcommand)]
    Log(log::Log),
    /// Heal one replica.
    #[command(subcommand)]
    Replica(replica::Replica),
    /// List, show, export and verify proofs that a replica lied.
    #[command(subcommand)]
    Misbehaviour(misbehaviour::Misbehaviour),
    /// Make an organisation's keys and certificates.
    #[command(subcommand)]
    Org(org::Org),
    /// Agree to a network: assemble, sign, seal, show.
    #[command(subcommand)]
    Genesis(genesis::Genesis),
    /// Change who belongs to the network: add, promote, remove, replace.
    #[command(subcommand)]
    Member(member::Member),
    /// Give a replica another key.
    #[command(subcommand)]
    Key(member::Key),
    /// Show or change the network's parameters.
    #[command(subcommand)]
    Config(member::Config),
    /// Show, export and verify how every epoch ended.
    #[command(subcommand)]
    Epoch(epoch::Epoch),
    /// Save backups that stock etcd restores, and check them offline.
    #[command(subcommand)]
    Snapshot(snapshot::Snapshot),
    /// Show the certificates in force and how long they are good.
    #[command(subcommand)]
    Cert(cert::Cert),
    /// Show versions.
    Version,
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = Vec::new();
    for argument in std::env::args_os() {
        match argument.into_string() {
            Ok(text) => arguments.push(text),
            Err(argument) => {
                eprintln!("althing: the argument {argument:?} is not UTF-8 text");
                return ExitCode::from(2);
            }
        }
    }
    match dispatch(&arguments) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("althing: {failure}");
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<ExitCode, Failure> {
    let program = arguments.first().map_or("althing", String::as_str);
    let named_etcd = program.rsplit('/').next() == Some("etcd");
    match arguments.get(1).map(String::as_str) {
        Some("serve") => return serve::run(&arguments[2..]),
        Some(flag) if flag.starts_with('-') => {
            if matches!(flag, "-h" | "-help" | "--help") {
                say!("{}{}", Cli::command().render_long_help(), serve::FLAGS_TITLE);
            }
            return serve::run(&arguments[1..]);
        }
        None if named_etcd => return serve::run(&[]),
        _ => {}
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            // A closed pipe is nothing to complain about.
            let _ = error.print();
            return Ok(ExitCode::from(code));
        }
    };
    let done = match cli.command {
        Command::Serve { flags } => return serve::run(&flags),
        Command::Demo(demo) => demo::run(demo),
        Command::Status(status) => status::run(&status),
        Command::Kv(command) => kv::run(command),
        Command::Blame(command) => provenance::blame(&command),
        Command::History(command) => provenance::history(&command),
        Command::Block(command) => block::run(&command),
        Command::Log(command) => log::run(&command),
        Command::Replica(command) => replica::run(&command),
        Command::Misbehaviour(command) => misbehaviour::run(&command),
        Command::Org(command) => org::run(command),
        Command::Genesis(command) => genesis::run(command),
        Command::Member(command) => member::member(command),
        Command::Key(command) => member::key(command),
        Command::Config(command) => member::config(command),
        Command::Epoch(command) => epoch::run(command),
        Command::Snapshot(command) => snapshot::run(command),
        Command::Cert(command) => cert::run(&command),
        Command::Version => {
            say!("{}", version::text().trim_end());
            Ok(())
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subcommand_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_alone_serve_and_wrong_usage_says_so() {
        let run = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
            dispatch(&arguments)
        };
        assert!(run(&["etcd", "--version"]).is_ok());
        assert!(run(&["althing", "--help"]).is_ok());
        for wrong in ["--dta-dir=x", "--client-cert-auth=perhaps"] {
            assert_eq!(run(&["etcd", wrong]).expect_err(wrong).code, 2);
        }
        assert_eq!(run(&["etcd", "--discovery=x"]).expect_err("refused").code, 1);
    }
}
