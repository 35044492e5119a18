//! Layers one TOML file under the environment and the command line.
//!
//! Every flag is a key of the file by its long name. The file's values become the defaults of the command line parser,
//! so that precedence, validation and `--help` have one home.

use std::{ffi::OsString, fs, path::Path};

use anyhow::{Context as _, bail};
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches};
use toml::{Table, Value};

use crate::values;

/// Flags that make no sense in the file.
const NOT_IN_FILE: [&str; 4] = ["config", "check-config", "help", "version"];

/// Parses arguments, the environment, and the file that `--config` names, in falling precedence.
///
/// An error of the command line itself is a [`clap::Error`] inside, which knows how to print help and usage.
pub fn parse<T: CommandFactory + FromArgMatches>(args: impl IntoIterator<Item = OsString>) -> anyhow::Result<T> {
    let args: Vec<OsString> = args.into_iter().collect();
    let matches = T::command().try_get_matches_from(&args)?;
    let Some(path) = matches.get_one::<std::path::PathBuf>("config") else {
        return Ok(T::from_arg_matches(&matches)?);
    };
    let command = with_defaults(T::command(), &read(path)?)
        .with_context(|| format!("the configuration file {}", path.display()))?;
    // The command line alone was fine, so what is wrong now came from the file.
    let matches = command
        .try_get_matches_from(&args)
        .map_err(|error| anyhow::anyhow!("the configuration file {}: {}", path.display(), one_line(&error)))?;
    Ok(T::from_arg_matches(&matches)?)
}

fn read(path: &Path) -> anyhow::Result<Table> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read the configuration file {}", path.display()))?;
    text.parse::<Table>().map_err(|error| {
        let problem = values::toml_error(&text, &error);
        anyhow::anyhow!("the configuration file {} is not TOML: {problem}", path.display())
    })
}

fn with_defaults(mut command: Command, table: &Table) -> anyhow::Result<Command> {
    for (key, value) in table {
        let arg = command
            .get_arguments()
            .find(|arg| arg.get_long() == Some(key) && !NOT_IN_FILE.contains(&key.as_str()));
        let Some(arg) = arg else {
            bail!("has an unknown key `{key}`; the keys are the long flags of --help without their dashes");
        };
        let words = words(arg, value).with_context(|| format!("the key `{key}`"))?;
        let id = arg.get_id().clone();
        command = command.mut_arg(id, |arg| arg.default_values(words));
    }
    Ok(command)
}

/// A value of the file as the words that would stand on the command line.
fn words(arg: &Arg, value: &Value) -> anyhow::Result<Vec<String>> {
    let many = matches!(arg.get_action(), ArgAction::Append);
    match value {
        Value::Array(items) if many => items.iter().map(word).collect(),
        Value::Array(_) => bail!("takes one value, not a list"),
        single => Ok(vec![word(single)?]),
    }
}

fn word(value: &Value) -> anyhow::Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(flag) => Ok(flag.to_string()),
        other => bail!("takes a text, a number or true/false, not a {}", other.type_str()),
    }
}

/// The first line of clap's message without its prefix.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Sample {
        #[arg(long)]
        config: Option<std::path::PathBuf>,
        #[arg(long, value_delimiter = ',')]
        carrier: Vec<String>,
        #[arg(long, default_value_t = 7)]
        number: u16,
        #[arg(long)]
        flag: bool,
    }

    fn sample(file: &str, args: &[&str]) -> anyhow::Result<Sample> {
        let mut config = tempfile::NamedTempFile::new().unwrap();
        config.write_all(file.as_bytes()).unwrap();
        let path = config.path().as_os_str().to_owned();
        let args = args.iter().map(OsString::from);
        parse(
            [OsString::from("sample"), OsString::from("--config"), path]
                .into_iter()
                .chain(args),
        )
    }

    #[test]
    fn the_file_gives_what_the_command_line_does_not() {
        let sample = sample("carrier = ['quic', 'h2']\nnumber = 9\nflag = true", &["--number", "11"]).unwrap();
        assert_eq!(sample.carrier, ["quic", "h2"]);
        assert_eq!(sample.number, 11);
        assert!(sample.flag);
    }

    #[test]
    fn a_list_on_the_command_line_replaces_the_one_of_the_file() {
        let sample = sample("carrier = ['quic', 'h2']", &["--carrier", "ws"]).unwrap();
        assert_eq!(sample.carrier, ["ws"]);
        assert_eq!(sample.number, 7);
    }

    #[test]
    fn mistakes_in_the_file_are_named_with_the_file() {
        for (file, part) in [
            ("nubmer = 9", "unknown key `nubmer`"),
            ("config = 'x'", "unknown key `config`"),
            ("number = 'many'", "invalid value 'many' for '--number"),
            ("number = [1, 2]", "the key `number`: takes one value"),
            ("number = 1.5", "takes a text, a number or true/false, not a float"),
            ("number = ", "is not TOML"),
        ] {
            let error = format!("{:#}", sample(file, &[]).unwrap_err());
            assert!(error.contains("the configuration file "), "{error}");
            assert!(error.contains(part), "{error}");
        }
    }
}
