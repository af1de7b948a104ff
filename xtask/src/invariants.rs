//! What must stay true (`docs/architecture.md`), as far as a look at the sources, the dependency tree or the built file
//! can tell. Each check gets what it looks at as an argument and returns its complaints, and each has a test that feeds
//! it a counter-example.

use std::path::Path;

use crate::source::RustFile;

/// Crates that could open a message, or that would only be there to do so.
const OPENERS: &[&str] = &[
    "sealwire-session",
    "sealwire-engine",
    "sealwire-client",
    "aes-gcm",
    "x25519-dalek",
    "chacha20poly1305",
    "ml-kem",
];
/// The same by how their names begin.
const OPENER_FAMILIES: &[&str] = &["hpke", "openmls", "x-wing"];

/// What every pure crate's `clippy.toml` bans, and perhaps more.
const BANNED: &[&str] = &[
    "std::time::SystemTime::now",
    "std::time::Instant::now",
    "std::thread::spawn",
    "std::thread::sleep",
    "std::fs::read",
    "std::fs::write",
    "std::env::var",
    "getrandom::fill",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "std::fs::File",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "allow-unwrap-in-tests = true",
];

/// Words that no Rust file of ours holds; put together, so that this file does not.
const WORDS: &[(&str, &str)] = &[
    (concat!("to", "do!("), "finish it"),
    (concat!("unimple", "mented!("), "finish it"),
    (concat!("db", "g!("), "take it out"),
    (concat!("FIX", "ME"), "fix it, or write an issue"),
    (concat!("#[al", "low("), "use #[expect(.., reason = \"..\")]"),
    (concat!("#![al", "low("), "use #![expect(.., reason = \"..\")]"),
    (concat!("#[ig", "nore"), "a test that does not run tests nothing"),
];

/// What a licence that asks for more than a notice is called.
const COPYLEFT: &[&str] = &["GPL", "MPL", "EPL", "EUPL", "CDDL", "OSL", "SSPL", "CC-BY-SA"];

/// Blind by construction: `tree` is what `cargo tree -e normal --prefix none --format '{p} [{f}]'` prints.
pub(crate) fn blind_tree(tree: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for line in tree.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        if OPENERS.contains(&name) || OPENER_FAMILIES.iter().any(|family| name.starts_with(family)) {
            complaints.push(format!("the relay depends on {name}, which could open a message"));
        }
        let features =
            line.rsplit_once('[').map_or("", |(_, features)| features.trim_end_matches([']', ' ', '(', '*', ')']));
        if name == "p256" && features.split(',').any(|feature| feature.trim_end_matches(']') == "ecdh") {
            complaints.push("the relay's p256 can agree on keys (feature ecdh)".into());
        }
    }
    if !tree.lines().any(|line| line.starts_with("sealwire-relay-core ")) {
        complaints.push("this is not the relay's tree".into());
    }
    complaints.sort();
    complaints.dedup();
    complaints
}

/// Blind by construction, seen in the built program: it holds no symbol of a crate that could open a message.
pub(crate) fn blind_program(program: &[u8]) -> Vec<String> {
    let crates = ["sealwire_session", "sealwire_engine", "sealwire_client", "openmls", "aes_gcm", "hpke"];
    let found = crates.into_iter().filter(|name| symbols_of(name).any(|symbol| holds(program, &symbol)));
    let mut complaints: Vec<_> = found.map(|name| format!("the program holds symbols of {name}")).collect();
    // Otherwise nothing could be found, and nothing would be told.
    if !symbols_of("sealwire_relay_core").any(|symbol| holds(program, &symbol)) {
        complaints.push("the program holds no symbols: it was stripped, or is another program".into());
    }
    complaints
}

/// How the names of a crate's symbols are mangled: as the first part of a path, in both manglings, and where it stands
/// for a type's path. C code that happens to be called alike is not meant.
fn symbols_of(name: &str) -> impl Iterator<Item = String> {
    let length = name.len();
    let path = [format!("_ZN{length}{name}"), format!("_{length}{name}")];
    let of_type = ["$LT$", "$C$", "_"].map(|before| format!("{before}{name}.."));
    path.into_iter().chain(of_type)
}

fn holds(bytes: &[u8], part: &str) -> bool {
    let first = part.as_bytes()[0];
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        if rest[at..].starts_with(part.as_bytes()) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// Nothing copyleft is in a program: `tree` is what `cargo tree --prefix none --format '{p}\t{l}'` prints of its package.
/// A crate that may be had under another licence, too, may be there; one that says none may not.
pub(crate) fn copyleft(package: &str, tree: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (krate, licence) in tree.lines().filter_map(|line| line.split_once('\t')) {
        let licence = licence.trim_end_matches("(*)").trim();
        let is_copyleft = |part: &str| COPYLEFT.iter().any(|name| part.contains(name));
        // A choice in brackets is not looked into: rather one complaint too many.
        let has_to_be = match licence.contains(" AND ") {
            true => is_copyleft(licence),
            false => licence.split(" OR ").all(is_copyleft),
        };
        if has_to_be || licence.is_empty() {
            complaints.push(format!("{package} links {krate}, whose licence is `{licence}`"));
        }
    }
    if !tree.starts_with(&format!("{package} ")) {
        complaints.push(format!("this is not the tree of {package}"));
    }
    complaints.sort();
    complaints.dedup();
    complaints
}

/// A pure crate's `clippy.toml` bans what it must.
pub(crate) fn pure_bans(name: &str, clippy: &str) -> Vec<String> {
    let absent = BANNED.iter().filter(|banned| !clippy.contains(**banned));
    absent.map(|banned| format!("the clippy.toml of {name} lacks {banned}")).collect()
}

/// `#![forbid(unsafe_code)]` in every crate's root.
pub(crate) fn no_unsafe(files: &[RustFile]) -> Vec<String> {
    let roots = files.iter().filter(|file| is_root(&file.path));
    let without = roots.filter(|file| !file.text.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]"));
    without.map(|file| format!("{} lacks #![forbid(unsafe_code)]", file.path.display())).collect()
}

fn is_root(path: &Path) -> bool {
    path.ends_with("src/lib.rs")
        || path.ends_with("src/main.rs")
        || path.parent().is_some_and(|p| p.ends_with("src/bin"))
}

/// No unfinished work, no switched-off lint, no switched-off test.
pub(crate) fn no_words(files: &[RustFile]) -> Vec<String> {
    let mut complaints = Vec::new();
    for RustFile { path, text } in files {
        for (index, line) in text.lines().enumerate() {
            let found = WORDS.iter().filter(|(word, _)| line.contains(word));
            complaints
                .extend(found.map(|(word, instead)| format!("{}:{}: `{word}`: {instead}", path.display(), index + 1)));
        }
    }
    complaints
}

/// Every claim of `docs/guarantees.md` names tests, and each of them exists.
pub(crate) fn guarantees(page: &str, files: &[RustFile]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut rows = 0;
    let lines: Vec<&str> = page.lines().collect();
    // The heading of a table stands before its rule.
    let is_heading = |index: usize| lines.get(index + 1).is_some_and(|next| is_rule(next));
    let is_row = |index: &usize| lines[*index].starts_with('|') && !is_rule(lines[*index]) && !is_heading(*index);
    for row in (0..lines.len()).filter(is_row).map(|index| lines[index]) {
        rows += 1;
        let tests: Vec<&str> = row.split('`').skip(1).step_by(2).filter(|quoted| is_test_name(quoted)).collect();
        let claim = row.trim_matches(['|', ' ']).split('|').take(2).map(str::trim).collect::<Vec<_>>().join(": ");
        if tests.is_empty() && !row.contains("cargo xtask") {
            complaints.push(format!("no test is named for: {claim}"));
        }
        for test in tests {
            let name = test.rsplit("::").next().unwrap_or(test);
            // The tests of a conformance suite are generic.
            let declarations = [format!("fn {name}("), format!("fn {name}<")];
            if !files.iter().any(|file| declarations.iter().any(|declared| file.text.contains(declared))) {
                complaints.push(format!("there is no test `{test}`, named for: {claim}"));
            }
        }
    }
    if rows == 0 {
        complaints.push("the page has no table".into());
    }
    complaints
}

fn is_rule(line: &str) -> bool {
    line.starts_with('|') && line.chars().all(|c| matches!(c, '|' | '-' | ':' | ' '))
}

/// Names of tests are lower case, in several words or with their path.
fn is_test_name(quoted: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | ':');
    quoted.chars().all(fits) && quoted.contains(['_', ':']) && !quoted.ends_with("::")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: &str = "sealwire-relay v0.1.0 (/x) []\nsealwire-relay-core v0.1.0 (/y) []\n";

    fn file(path: &str, text: &str) -> RustFile {
        RustFile { path: path.into(), text: text.into() }
    }

    #[test]
    fn a_relay_that_could_open_messages_is_complained_about() {
        assert_eq!(blind_tree(RELAY), Vec::<String>::new());
        for opener in ["sealwire-session v0.1.0 []", "aes-gcm v0.11.1 [aes]", "hpke-rs v0.3.0 []", "openmls v0.8.0 []"]
        {
            assert_eq!(blind_tree(&format!("{RELAY}{opener}")).len(), 1, "{opener}");
        }
        assert_eq!(blind_tree(&format!("{RELAY}p256 v0.14.0 [arithmetic]")), Vec::<String>::new());
        assert_eq!(blind_tree(&format!("{RELAY}p256 v0.14.0 [arithmetic,ecdh]")).len(), 1);
        assert_eq!(blind_tree(&format!("{RELAY}p256 v0.14.0 [arithmetic,ecdh] (*)")).len(), 1);
        assert_eq!(blind_tree("sealwire-wire v0.1.0 []").len(), 1);
    }

    #[test]
    fn a_program_with_symbols_that_could_open_messages_is_complained_about() {
        let relay = b"\0_ZN19sealwire_relay_core5relay17h0E\0aes_gcm_encrypt\0".to_vec();
        assert_eq!(blind_program(&relay), Vec::<String>::new());
        for symbol in ["_ZN16sealwire_session6direct4open17h0E", "_RNvC8abc_7aes_gcm3new", "_ZN5$LT$aes_gcm..AesGcm"] {
            let other = [&relay[..], symbol.as_bytes()].concat();
            assert_eq!(blind_program(&other).len(), 1, "{symbol}");
        }
        assert_eq!(blind_program(b"stripped").len(), 1);
    }

    /// The counter-example of the real thing: this program is built like the relay, and its own symbols are found.
    #[test]
    fn symbols_of_a_built_program_are_found() {
        let itself = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(symbols_of("xtask").any(|symbol| holds(&itself, &symbol)));
    }

    #[test]
    fn a_program_with_copyleft_is_complained_about() {
        let program =
            |licence: &str| copyleft("x", &format!("x v0.1.0 (/x)\tMIT OR Apache-2.0\ny v1.0.0\t{licence}\n"));
        for fine in ["MIT", "MIT OR LGPL-2.1-or-later", "MIT/Apache-2.0 (*)", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
            assert_eq!(program(fine), Vec::<String>::new(), "{fine}");
        }
        for bad in ["MPL-2.0", "MPL-2.0 (*)", "MIT AND MPL-2.0", "GPL-3.0 OR AGPL-3.0", ""] {
            assert_eq!(program(bad).len(), 1, "{bad}");
        }
        assert_eq!(copyleft("x", "y v1.0.0\tMIT\n").len(), 1);
    }

    #[test]
    fn a_ban_that_is_missing_is_complained_about() {
        let all = BANNED.join("\n");
        assert_eq!(pure_bans("x", &all), Vec::<String>::new());
        assert_eq!(pure_bans("x", &all.replace("std::time::SystemTime::now", "")).len(), 1);
    }

    #[test]
    fn a_root_without_its_forbid_is_complained_about() {
        assert_eq!(no_unsafe(&[file("crates/x/src/lib.rs", "#![forbid(unsafe_code)]\n")]), Vec::<String>::new());
        assert_eq!(no_unsafe(&[file("crates/x/src/main.rs", "// #![forbid(unsafe_code)]")]).len(), 1);
        assert_eq!(no_unsafe(&[file("crates/x/src/other.rs", "")]), Vec::<String>::new());
    }

    #[test]
    fn each_word_is_complained_about() {
        for (word, _) in WORDS {
            let complaints = no_words(&[file("a.rs", &format!("fine\n    {word}dead_code)]"))]);
            assert_eq!(complaints.len(), 1, "{word}");
            assert!(complaints[0].starts_with("a.rs:2:"), "{complaints:?}");
        }
        assert_eq!(no_words(&[file("a.rs", "#[expect(dead_code, reason = \"x\")]")]), Vec::<String>::new());
    }

    #[test]
    fn a_guarantee_without_its_test_is_complained_about() {
        let files = [file("a.rs", "#[test]\nfn it_holds() {}")];
        let page = |cell: &str| format!("| Claim | Test |\n|---|:--|\n| It holds | {cell} |\n");
        assert_eq!(guarantees(&page("`a::it_holds`, `it_holds`, `Accepted`"), &files), Vec::<String>::new());
        assert_eq!(guarantees(&page("`cargo xtask faults`"), &files), Vec::<String>::new());
        assert_eq!(
            guarantees(&page("`a::it_held`"), &files),
            ["there is no test `a::it_held`, named for: It holds: `a::it_held`"]
        );
        assert_eq!(guarantees(&page("by thinking"), &files), ["no test is named for: It holds: by thinking"]);
        assert_eq!(guarantees("no table", &files).len(), 1);
    }
}
