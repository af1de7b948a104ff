//! The one sanitiser. Whatever came from somebody else passes here before it reaches a terminal: what a terminal would
//! obey, or a person could not see, becomes a visible symbol.

/// Text of several lines. A tab becomes a space; a line break stays one.
pub(crate) fn safe(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |safe, c| show(safe, c, c == '\n'))
}

/// Text that has to stay on one line: names, media types, excerpts.
pub(crate) fn line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |safe, c| show(safe, c, false))
}

/// Text of several lines below each other, so that none of them can pass for a line of this program or of another
/// sender.
pub(crate) fn indented(text: &str, width: usize) -> String {
    safe(text.strip_suffix('\n').unwrap_or(text)).replace('\n', &format!("\n{:width$}", ""))
}

/// The beginning of a text, on one line.
pub(crate) fn excerpt(text: &str) -> String {
    const CHARS: usize = 32;
    let begin: String = text.chars().take(CHARS).collect();
    let more = if text.chars().nth(CHARS).is_some() { "…" } else { "" };
    format!("{}{more}", line(&begin))
}

fn show(mut safe: String, c: char, keep: bool) -> String {
    match c {
        _ if keep => safe.push(c),
        '\t' => safe.push(' '),
        // The control pictures stand in the order of the controls.
        '\0'..='\u{1f}' => safe.extend(char::from_u32(0x2400 + u32::from(c))),
        '\u{7f}' => safe.push('␡'),
        _ if is_hidden(c) => safe.push_str(&format!("<U+{:04X}>", u32::from(c))),
        _ => safe.push(c),
    }
    safe
}

/// Whether a character acts without being seen: controls, format characters (Unicode's Cf: bidi, zero width, tags),
/// separators of lines and paragraphs, fillers that look like nothing, and noncharacters.
pub(crate) fn is_hidden(c: char) -> bool {
    let code = u32::from(c);
    c.is_control()
        || code & 0xfffe == 0xfffe
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{8e2}' | '\u{feff}'
            | '\u{600}'..='\u{605}' | '\u{890}'..='\u{891}' | '\u{180b}'..='\u{180f}'
            | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{3164}' | '\u{ffa0}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{fdd0}'..='\u{fdef}' | '\u{fff0}'..='\u{fffb}'
            | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HP-10: what is printed obeys nobody, whatever stands in it.
    #[test]
    fn nothing_that_acts_gets_through() {
        for code in 0..=0x10_ffff {
            let Some(c) = char::from_u32(code) else { continue };
            let text = format!("a{c}b");
            let (safe, line) = (safe(&text), line(&text));
            assert!(safe.chars().all(|c| c == '\n' || !is_hidden(c)), "U+{code:04X} in {safe:?}");
            assert!(!line.chars().any(is_hidden), "U+{code:04X} in {line:?}");
        }
    }

    #[test]
    fn escapes_are_shown() {
        assert_eq!(safe("\u{1b}]0;owned\u{7}\u{1b}[2J"), "␛]0;owned␇␛[2J");
        assert_eq!(safe("\u{9b}31mred"), "<U+009B>31mred");
        assert_eq!(safe("a\u{202e}b\u{2066}c\u{200f}d\u{61c}"), "a<U+202E>b<U+2066>c<U+200F>d<U+061C>");
        assert_eq!(safe("a\u{200b}\u{2060}\u{feff}b\u{2028}c"), "a<U+200B><U+2060><U+FEFF>b<U+2028>c");
        assert_eq!(safe("rub\u{8}\u{7f}out\rover"), "rub␈␡out␍over");
        assert_eq!(safe("two\nlines\tand a tab"), "two\nlines and a tab");
        assert_eq!(line("two\nlines"), "two␊lines");
    }

    #[test]
    fn ordinary_writing_stays_as_it_is() {
        for text in ["Grüße, 你好, مرحبا, שלום 👋🏽 ❤\u{fe0f}", "e\u{301}", "<b>&amp;</b> \\ \" '"] {
            assert_eq!(safe(text), text);
        }
    }

    /// A line of a message cannot look like the line of another sender.
    #[test]
    fn further_lines_are_indented() {
        assert_eq!(indented("one\nbob@relay: two\n", 4), "one\n    bob@relay: two");
        assert_eq!(excerpt(&"x".repeat(40)), format!("{}…", "x".repeat(32)));
    }
}
