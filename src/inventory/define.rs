//! How sections, sets of words and checked texts are defined.
//!
//! [`section!`] is the one definition of a table's keys: their names, docs, types and defaults. Reading, merging, the
//! unknown-key check and the JSON schema all come from it.

use super::diagnostic::{Wrong, nearest};
use super::setting::listed;

/// Defines a table of the inventory: its keys with their docs, types and defaults, once and for all uses.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $vis:vis struct $name:ident {
            $( $(#[doc = $doc:literal])+ $key:ident : $type:ty = $default:expr, )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
        $vis struct $name {
            $( $(#[doc = $doc])+ $vis $key: $type, )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $key: $default, )+ }
            }
        }

        impl $crate::inventory::setting::Setting for $name {
            fn schema(definitions: &mut $crate::inventory::schema::Definitions) -> $crate::inventory::schema::Schema {
                use $crate::inventory::schema::Key;
                definitions.section(stringify!($name), concat!($($about, "\n"),+), |definitions| {
                    let default = $name::default();
                    vec![$( Key {
                        name: stringify!($key),
                        docs: concat!($($doc, "\n"),+),
                        required: <$type as $crate::inventory::setting::Setting>::REQUIRED.is_some(),
                        schema: <$type as $crate::inventory::setting::Setting>::schema(definitions),
                        default: serde_json::to_value(&default.$key).unwrap_or_default(),
                    }, )+]
                })
            }

            fn over(
                self,
                value: &$crate::inventory::setting::Found<'_>,
                problems: &mut $crate::inventory::setting::Problems,
            ) -> Self {
                use $crate::inventory::setting::{Setting, check_keys};
                check_keys(value, &[$( (stringify!($key), <$type as Setting>::REQUIRED) ),+], problems);
                let Some(table) = value.get_ref().as_table() else { return self };
                Self { $(
                    $key: match table.get(stringify!($key)) {
                        Some(value) => Setting::over(self.$key, value, problems),
                        None => self.$key,
                    },
                )+ }
            }
        }
    };
}

/// Defines a set of words of which a key takes one.
macro_rules! choice {
    (
        $(#[$about:meta])+
        pub enum $name:ident: $expected:literal {
            $( $(#[$doc:meta])+ $variant:ident = $word:literal, )+
        }
    ) => {
        $(#[$about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $( $(#[$doc])+ $variant, )+
        }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),+];

            /// The word as it stands in the inventory.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::inventory::Wrong;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $( $word => Ok(Self::$variant), )+
                    _ => Err($crate::inventory::define::no_choice(text, $expected, &[$( $word ),+])),
                }
            }
        }

        impl $crate::inventory::setting::Text for $name {
            const EXPECTED: &'static str = concat!("one of" $(, " `", $word, "`")+);

            fn text_schema() -> $crate::inventory::schema::Schema {
                serde_json::json!({ "enum": [$( $word ),+] })
            }
        }

        $crate::inventory::define::shown_as_str!($name, |this| this.as_str());
    };
}

/// The error for a word that is none of a [`choice!`].
pub(crate) fn no_choice(text: &str, expected: &str, words: &[&str]) -> Wrong {
    let wrong = Wrong::new(format!("`{}` is not {expected}", text.escape_debug()));
    match nearest(text, words.iter().copied()) {
        Some(near) => wrong.help(format!(
            "did you mean `{near}`? The words are {}",
            listed(words)
        )),
        None => wrong.help(format!("the words are {}", listed(words))),
    }
}

/// Defines a string that was checked when it was parsed.
macro_rules! text {
    (
        $(#[$about:meta])+
        pub struct $name:ident: $expected:literal, $pattern:expr, $check:path;
    ) => {
        $(#[$about])+
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::inventory::Wrong;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $check(text).map(Self)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl $crate::inventory::setting::Text for $name {
            const EXPECTED: &'static str = $expected;
            const PATTERN: Option<&'static str> = $pattern;
        }

        $crate::inventory::define::shown_as_str!($name, |this| this.0.as_str());
    };
}

/// `Display` and `Serialize` for a type that has a `&str`.
macro_rules! shown_as_str {
    ($name:ident, |$this:ident| $text:expr) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let $this = self;
                f.pad($text)
            }
        }

        $crate::inventory::define::serialized_as_shown!($name);
    };
}

/// `Serialize` for a type whose `Display` is the way it is written in the inventory.
macro_rules! serialized_as_shown {
    ($name:ident $(<$(const $limit:ident: $number:ty),+>)?) => {
        impl $(<$(const $limit: $number),+>)? serde::Serialize for $name $(<$($limit),+>)? {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

pub(crate) use {choice, section, serialized_as_shown, shown_as_str, text};
