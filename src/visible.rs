//! Texts of strangers on a terminal: what cannot be seen, or changes how the rest is seen, is written as its number.
//!
//! A VM may be called anything that libvirt takes, with characters that move the cursor, turn the direction of writing
//! round, end a line, or have no width. Names are kept and compared as they are; only what a person reads goes through
//! here, and the person can give it back: [`meant`].

use std::fmt::Write as _;

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};

/// Whether a reader would not see this character as what it is.
fn is_hidden(c: char) -> bool {
    use GeneralCategory::{
        Control, Format, LineSeparator, ParagraphSeparator, PrivateUse, SpaceSeparator, Surrogate, Unassigned,
    };
    match c {
        // Almost all that is ever written: the table behind the rest is searched for each character.
        ' '..='~' => false,
        // Fillers, joiners and selectors that count as letters, marks or symbols and show nothing.
        '\u{34F}'
        | '\u{115F}'
        | '\u{1160}'
        | '\u{17B4}'
        | '\u{17B5}'
        | '\u{180B}'..='\u{180F}'
        | '\u{2800}' => true,
        '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FFA0}' | '\u{1D159}' | '\u{E0100}'..='\u{E01EF}' => true,
        _ => matches!(
            c.general_category(),
            Control
                | Format
                | LineSeparator
                | ParagraphSeparator
                | PrivateUse
                | SpaceSeparator
                | Surrogate
                | Unassigned
        ),
    }
}

fn put(out: &mut String, c: char) {
    let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
}

/// A text as a person may see it, on one line. Different texts stay different.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        // What looks like one of our numbers already.
        let a_number = c == '\\' && rest.as_str().starts_with("u{");
        if a_number || is_hidden(c) { put(&mut out, c) } else { out.push(c) }
    }
    out
}

/// Lines that are ready to be shown, without anything hidden that was forgotten. Line ends stay.
pub fn on_a_terminal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '\n' && is_hidden(c) { put(&mut out, c) } else { out.push(c) }
    }
    out
}

/// A JSON document that means the same and hides nothing. Line ends stay.
pub fn json_on_a_terminal(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    for c in document.chars() {
        if c == '\n' || !is_hidden(c) {
            out.push(c);
            continue;
        }
        // Only texts have such characters, and texts may have any character by its number.
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

/// The text that a person means who gives back what [`visible`] showed; any other text is meant as it is.
pub fn meant(shown: &str) -> String {
    let mut out = String::with_capacity(shown.len());
    let mut rest = shown;
    while let Some((before, behind)) = rest.split_once("\\u{") {
        out.push_str(before);
        let number = behind.split_once('}').and_then(|(digits, after)| {
            let number = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)?;
            Some((number, after))
        });
        rest = match number {
            Some((c, after)) => {
                out.push(c);
                after
            }
            None => {
                out.push_str("\\u{");
                behind
            }
        };
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIDDEN: [char; 22] = [
        '\u{202e}',
        '\u{2066}',
        '\u{2028}',
        '\u{2029}',
        '\u{200b}',
        '\u{200d}',
        '\u{feff}',
        '\u{9b}',
        '\u{1b}',
        '\u{7}',
        '\u{0}',
        '\n',
        '\t',
        '\u{7f}',
        '\u{ad}',
        '\u{a0}',
        '\u{3164}',
        '\u{fe0f}',
        '\u{e000}',
        '\u{e0041}',
        '\u{61c}',
        '\u{fff9}',
    ];

    #[test]
    fn what_hides_or_turns_text_is_shown_by_its_number_and_found_by_it_again() {
        for c in HIDDEN {
            let name = format!("a{c}b");
            let shown = visible(&name);
            assert_eq!(shown, format!("a\\u{{{:x}}}b", u32::from(c)));
            assert_eq!(meant(&shown), name);
            assert!(!shown.contains(c) && !json_on_a_terminal(&format!("\"{c}\"")).contains(c) || c == '\n');
            assert!(c == '\n' || !on_a_terminal(&name).contains(c));
        }
    }

    #[test]
    fn names_of_all_languages_stay_as_they_are() {
        for name in [
            "web-1",
            "Überraschung",
            "データベース",
            "база",
            "قاعدة",
            "e\u{301}",
            "ฐานข้อมูล",
            "a b",
            "C:\\u",
            "😀",
        ] {
            assert_eq!(visible(name), name);
            assert_eq!(on_a_terminal(name), name);
            assert_eq!(meant(name), name);
        }
    }

    #[test]
    fn no_two_names_are_shown_alike() {
        for (one, other) in [("a\u{202e}", "a\\u{202e}"), ("\\u{5c}u{9b}", "\\u{9b}"), ("\u{9b}", "\\u{9b}")]
        {
            assert_ne!(visible(one), visible(other));
            assert_eq!((meant(&visible(one)), meant(&visible(other))), (one.into(), other.into()));
        }
        for broken in ["\\u{", "\\u{}", "\\u{x}", "\\u{d800}", "\\u{ffffffffff}"] {
            assert_eq!(meant(broken), broken);
        }
    }

    #[test]
    fn a_document_means_the_same_with_its_hidden_characters_as_numbers() {
        let told = serde_json::json!({ "name": HIDDEN.iter().collect::<String>(), "other": ["x\u{1d173}"] });
        let safe = json_on_a_terminal(&told.to_string());
        assert!(!safe.contains(is_hidden), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), told);
    }
}
