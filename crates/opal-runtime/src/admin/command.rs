//! From the command line to a command, and from a command to its output.

use std::io::Write;

use super::arguments::{Arguments, Flag};
use super::{
    AdminError, GenerateSecret, OPAL_VERSION, ObtainToken, PublishDataUpdate, UsageErrors, text,
};
use crate::config::{CommandLine, Environment, Program, Settings, print_config};

/// The commands of both daemons.
pub const COMMANDS: [&str; 6] = [
    "run",
    "print-config",
    "obtain-token",
    "generate-secret",
    "publish-data-update",
    "version",
];

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Run the daemon. The engine type is upstream's web server, which is ignored but named in
    /// the first line.
    Run {
        /// `uvicron`, as upstream spells its default.
        engine_type: String,
    },
    /// Print all settings.
    PrintConfig,
    /// Ask a server for a token.
    ObtainToken(ObtainToken),
    /// Print random bytes.
    GenerateSecret(GenerateSecret),
    /// Publish a data update through a server.
    PublishDataUpdate(PublishDataUpdate),
    /// Print the version.
    Version,
    /// Print this text: what was asked for, or what to do when nothing was.
    Show(String),
}

const ENGINE_TYPE: Flag = Flag {
    names: &["--engine-type"],
    values: 1,
};

impl Command {
    /// The command of `line`. Its flags are no concern here: their problems are reported with
    /// those of the settings.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the command's own options.
    pub fn parse(
        program: Program,
        line: &CommandLine,
        environment: &Environment,
    ) -> Result<Self, UsageErrors> {
        if line.help {
            return Ok(Self::Show(text::help(program)));
        }
        let Some(name) = line.command.as_deref() else {
            let text = format!("{}\n{}", text::header(program), text::usage(program));
            return Ok(Self::Show(text));
        };
        let given = line.arguments.as_slice();
        let (arguments, command) = match name {
            "run" => {
                let arguments = Arguments::parse(&[ENGINE_TYPE], 0, given);
                let engine_type = arguments.text("--engine-type", "uvicron");
                (arguments, Self::Run { engine_type })
            }
            "obtain-token" => {
                let (arguments, command) = ObtainToken::parse(given, environment);
                (arguments, Self::ObtainToken(command))
            }
            "generate-secret" => {
                let (arguments, command) = GenerateSecret::parse(given);
                (arguments, Self::GenerateSecret(command))
            }
            "publish-data-update" => {
                let (arguments, command) = PublishDataUpdate::parse(given, environment);
                (arguments, Self::PublishDataUpdate(command))
            }
            "version" => (Arguments::parse(&[], 0, given), Self::Version),
            _ => (Arguments::parse(&[], 0, given), Self::PrintConfig),
        };
        if arguments.help {
            return Ok(Self::Show(text::command_help(program, name)));
        }
        arguments.finish(command)
    }

    /// Does anything but [`Command::Run`], which is the daemon's own, and prints to `out`.
    /// `colour` is for terminals.
    ///
    /// # Errors
    ///
    /// If a server could not be reached or refused, or `out` could not be written to.
    pub async fn execute(
        &self,
        settings: &Settings,
        out: &mut (dyn Write + Send),
        colour: bool,
    ) -> Result<(), AdminError> {
        match self {
            Self::Run { engine_type } => {
                let program = settings.program();
                let line = text::starting(program, engine_type);
                writeln!(out, "{}\n{line}", text::header(program))?;
            }
            Self::PrintConfig => writeln!(out, "{}", print_config(settings))?,
            Self::ObtainToken(command) => writeln!(out, "{}", command.send().await?)?,
            Self::GenerateSecret(command) => writeln!(out, "{}", command.generate())?,
            Self::PublishDataUpdate(command) => command.send(out, colour).await?,
            Self::Version => writeln!(out, "{OPAL_VERSION}")?,
            Self::Show(text) => writeln!(out, "{text}")?,
        }
        Ok(())
    }
}
