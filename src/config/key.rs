//! What is known of a key, and the macro by which `settings.rs` declares all of them.

use super::rule::Rule;
pub(super) use super::settings::{KEYS, SECTIONS};

/// A key of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// Its section.
    pub(super) section: &'static str,
    /// Its name in the section.
    pub(super) name: &'static str,
    /// What it means: lines of a comment.
    pub(super) about: &'static [&'static str],
    /// Its default as TOML, broken into lines where the compiler likes.
    pub(super) written: &'static str,
    /// What it may be set to.
    pub(super) rule: Rule,
    /// The flag of the daemon's that sets it.
    pub(super) flag: Option<KeyFlag>,
}

/// The flag of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyFlag {
    /// Its long name, without hyphens.
    pub(super) long: &'static str,
    /// What the help calls its value.
    pub(super) value: &'static str,
    /// Its help, without the key.
    pub(super) help: &'static str,
}

/// A section of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Section {
    /// Its name.
    pub(super) name: &'static str,
    /// What it is about: lines of a comment.
    pub(super) about: &'static [&'static str],
}

/// A whole number within bounds, and what it counts, in the plural.
pub(super) const fn number(min: i64, max: i64, unit: &'static str) -> Rule {
    Rule::Number { min, max, unit }
}

/// A flag: its long name, what the help calls its value, and the help.
pub(super) const fn flag(long: &'static str, value: &'static str, help: &'static str) -> KeyFlag {
    KeyFlag { long, value, help }
}

/// Makes the settings and the lists of keys and sections from one declaration.
macro_rules! declare {
    ($(
        $(#[doc = $about:literal])*
        $section:ident: $settings:ident {$(
            $(#[doc = $doc:literal])*
            $name:literal = $default:tt, $rule:expr $(, $flag:expr)? => $field:ident: $type:ty $(, read $with:literal)?;
        )*}
    )*) => {
        /// All settings.
        // The comments of keys are TOML's, not Markdown: brackets and angles in them mean themselves.
        #[allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)]
        #[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Settings {$(
            $(#[doc = $about])*
            pub $section: $settings,
        )*}

        $(
            #[doc = concat!("`[", stringify!($section), "]`.")]
            #[allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)]
            #[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $settings {$(
                $(#[doc = $doc])*
                #[serde(rename = $name $(, deserialize_with = $with)?)]
                pub $field: $type,
            )*}
        )*

        /// All sections, in their order.
        pub(super) const SECTIONS: &[super::key::Section] = &[$(
            super::key::Section { name: stringify!($section), about: &[$($about),*] },
        )*];

        /// All keys, in their order.
        pub(super) const KEYS: &[super::key::Key] = &[$($(
            super::key::Key {
                section: stringify!($section),
                name: $name,
                about: &[$($doc),*],
                written: stringify!($default),
                rule: $rule,
                flag: declare!(@flag $($flag)?),
            },
        )*)*];
    };
    (@flag) => { None };
    (@flag $flag:expr) => { Some($flag) };
}
pub(super) use declare;

impl Key {
    /// Section and name with a dot between.
    pub(super) fn full(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// Its default as TOML, in one line.
    pub(super) fn default(&self) -> String {
        self.written.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The environment variable that sets it.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}__{}", self.section, self.name).to_ascii_uppercase()
    }

    /// The key of this section and name.
    pub(super) fn find(section: &str, name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.section == section && key.name == name)
    }

    /// Whether there is such a section.
    pub(super) fn has_section(section: &str) -> bool {
        KEYS.iter().any(|key| key.section == section)
    }
}

/// What the names of our environment variables begin with.
pub(super) const PREFIX: &str = "WHYDOWN_";

/// Longer names are not compared: nobody types them by mistake, and comparing takes the product of both lengths.
const COMPARED_BYTES: usize = 64;

/// The name that was probably meant, if one is near.
pub(super) fn near(wrong: &str, right: impl Iterator<Item = String>) -> Option<String> {
    if wrong.len() > COMPARED_BYTES {
        return None;
    }
    let wrong = wrong.to_ascii_lowercase().replace('-', "_");
    right
        .map(|name| (strsim::damerau_levenshtein(&wrong, &name.to_ascii_lowercase()), name))
        .filter(|(distance, name)| *distance <= (name.len().max(wrong.len()) / 3).clamp(1, 4))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
