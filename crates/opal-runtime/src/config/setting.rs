//! What one setting is: its name, its type, its default, and whether it does anything.

use super::model::Model;

/// One of the daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `opal-server`.
    Server,
    /// `opal-client`.
    Client,
}

/// One entry of the tables [`common`](super::common), [`server`](super::server) and
/// [`client`](super::client).
///
/// The environment variable is `OPAL_<key>`, the flag `--<key-in-kebab-case>`.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The name, such as `SERVER_BIND_PORT`.
    pub key: &'static str,
    /// The name in `print-config`, which differs in a few places.
    pub shown_as: &'static str,
    /// How its text is read.
    pub kind: Kind,
    /// The text if nobody sets it; `${KEY}`, `${cwd}` and `${home}` are replaced.
    pub default: Option<&'static str>,
    /// One sentence for the reference manual.
    pub help: &'static str,
    /// Whether its value must never be printed.
    pub secret: bool,
    /// The short flag.
    pub flag: Option<char>,
    /// Whether released OPAL lacks it.
    pub ours: bool,
    /// Whether it does anything.
    pub effect: Effect,
}

/// How a setting's text is read.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int,
    /// Any number.
    Float,
    /// Any text.
    Text,
    /// Text separated by this character.
    List(char),
    /// One of a few texts.
    Enum(&'static Enumeration),
    /// JSON.
    Model(&'static Model),
    /// A key: the path of a file, or its text.
    Key,
}

/// The texts that a setting may have, and how Python prints them.
#[derive(Debug)]
pub struct Enumeration {
    /// The Python class.
    pub class: &'static str,
    /// Pairs of Python name and text.
    pub members: &'static [(&'static str, &'static str)],
}

/// Whether a setting does anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It does what its help says.
    Yes,
    /// It is accepted, and will.
    NotYet,
    /// It is accepted and never will, for this reason.
    Never(&'static str),
}

impl Setting {
    /// A setting of that kind, without default and without effect yet.
    pub(super) const fn new(key: &'static str, kind: Kind, help: &'static str) -> Self {
        Self {
            key,
            shown_as: key,
            kind,
            default: None,
            help,
            secret: false,
            flag: None,
            ours: false,
            effect: Effect::NotYet,
        }
    }

    pub(super) const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    pub(super) const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    pub(super) const fn short(mut self, flag: char) -> Self {
        self.flag = Some(flag);
        self
    }

    pub(super) const fn shown_as(mut self, name: &'static str) -> Self {
        self.shown_as = name;
        self
    }

    pub(super) const fn ours(mut self) -> Self {
        self.ours = true;
        self
    }

    pub(super) const fn works(mut self) -> Self {
        self.effect = Effect::Yes;
        self
    }

    pub(super) const fn never(mut self, reason: &'static str) -> Self {
        self.effect = Effect::Never(reason);
        self
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("OPAL_{}", self.key)
    }

    /// Another variable that means the same: some names carry `OPAL_` twice upstream.
    pub fn other_variable(&self) -> Option<String> {
        match self.key.strip_prefix("OPAL_") {
            Some(_) => Some(self.key.to_owned()),
            None if self.shown_as != self.key => Some(format!("OPAL_{}", self.shown_as)),
            None => None,
        }
    }

    /// The long flag, with its dashes.
    pub fn long_flag(&self) -> String {
        format!("--{}", self.key.to_ascii_lowercase().replace('_', "-"))
    }
}

/// A setting of `true` or `false`.
pub(super) const fn bool(key: &'static str, help: &'static str) -> Setting {
    Setting::new(key, Kind::Bool, help)
}

/// A setting of a whole number.
pub(super) const fn int(key: &'static str, help: &'static str) -> Setting {
    Setting::new(key, Kind::Int, help)
}

/// A setting of any number.
pub(super) const fn float(key: &'static str, help: &'static str) -> Setting {
    Setting::new(key, Kind::Float, help)
}

/// A setting of any text.
pub(super) const fn text(key: &'static str, help: &'static str) -> Setting {
    Setting::new(key, Kind::Text, help)
}

/// A setting of texts separated by commas.
pub(super) const fn list(key: &'static str, help: &'static str) -> Setting {
    Setting::new(key, Kind::List(','), help)
}

impl Enumeration {
    /// The allowed texts.
    pub fn texts(&self) -> impl Iterator<Item = &'static str> {
        self.members.iter().map(|(_, text)| *text)
    }

    /// Python's name of the member with that text.
    pub fn name_of(&self, text: &str) -> Option<&'static str> {
        let member = self.members.iter().find(|(_, member)| *member == text);
        member.map(|(name, _)| *name)
    }
}

impl Kind {
    /// What a text must be, for an error message.
    pub fn expected(&self) -> String {
        match self {
            Self::Bool => "true, false, 1 or 0".to_owned(),
            Self::Int => "a whole number".to_owned(),
            Self::Float => "a number".to_owned(),
            Self::Text => "text".to_owned(),
            Self::List(delimiter) => format!("texts separated by `{delimiter}`"),
            Self::Enum(enumeration) => {
                let texts: Vec<&str> = enumeration.texts().collect();
                format!("one of {}", texts.join(", "))
            }
            Self::Model(_) => "a JSON object".to_owned(),
            Self::Key => "a key or the path of one".to_owned(),
        }
    }

    /// Whether `text` could be of this kind. What a key or a model holds is the reader's question.
    pub(super) fn accepts(&self, text: &str) -> bool {
        match self {
            Self::Bool => super::value::parse_bool(text).is_some(),
            Self::Int => super::value::parse_int(text).is_some(),
            Self::Float => super::value::parse_float(text).is_some(),
            Self::Enum(enumeration) => enumeration.name_of(text).is_some(),
            Self::Model(_) => {
                serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok()
            }
            Self::Text | Self::List(_) | Self::Key => true,
        }
    }
}
