//! Settings: where they come from, what they mean, and everything that is wrong with them.
//!
//! Texts first, types later. [`CommandLine`] and [`Environment`] hold what the user said;
//! [`Settings::collect`] gives each setting of the program's table one text and its [`Source`]:
//! flag before environment before file before default. A [`Reader`] then turns texts into types
//! for the structs of the daemons, goes on after a problem, and reports all of them together in
//! [`Reader::finish`]. The value of a secret is in none of the messages.
//!
//! The tables are [`common::SETTINGS`], [`server::SETTINGS`] and [`client::SETTINGS`].

pub mod client;
mod command_line;
pub mod common;
mod environment;
mod model;
mod print;
mod reader;
pub mod server;
mod setting;
mod settings;
mod typo;
mod value;

pub use command_line::CommandLine;
pub use environment::Environment;
pub(crate) use model::printable_url;
pub use model::{Model, REDACTED};
pub use print::print_config;
pub use reader::Reader;
pub use setting::{Effect, Enumeration, Kind, Program, Setting};
pub use settings::{ConfigErrors, Problem, Settings, Source, Warning};
pub(crate) use value::parse_int;
pub use value::{FromSetting, Json, Seconds};
