//! Which crate of ours may know which: the map of `docs/architecture.md` as a table. Whoever adds an edge adds it here,
//! and sees what it means.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::run::Workspace;

/// A crate, its level, and the crates of ours that it depends on (tests aside).
type Row = (&'static str, u8, &'static [&'static str]);

/// Five levels. An edge goes down, or stays on its level where two crates of one level are listed so.
const CRATES: &[Row] = &[
    ("sealwire-wire", 1, &[]),
    ("sealwire-keys", 1, &["sealwire-wire"]),
    ("sealwire-model", 1, &[]),
    ("sealwire-session", 2, &["sealwire-keys", "sealwire-wire"]),
    ("sealwire-store", 2, &["sealwire-keys", "sealwire-wire"]),
    ("sealwire-engine", 3, &["sealwire-keys", "sealwire-session", "sealwire-wire"]),
    ("sealwire-relay-core", 3, &["sealwire-keys", "sealwire-store", "sealwire-wire"]),
    ("sealwire-store-sqlite", 3, &["sealwire-keys", "sealwire-store", "sealwire-wire"]),
    ("sealwire-client", 4, &["sealwire-engine", "sealwire-keys", "sealwire-wire"]),
    ("sealwire-relay", 4, &["sealwire-relay-core", "sealwire-store", "sealwire-store-sqlite", "sealwire-wire"]),
    (
        "sealwire-sim",
        4,
        &[
            "sealwire-engine",
            "sealwire-keys",
            "sealwire-relay-core",
            "sealwire-session",
            "sealwire-store",
            "sealwire-wire",
        ],
    ),
    ("sealwire-demo", 5, &["sealwire-client", "sealwire-keys", "sealwire-relay", "sealwire-session", "sealwire-wire"]),
    ("sealwire-cli", 5, &["sealwire-client", "sealwire-demo", "sealwire-wire"]),
    (
        "sealwire-bench",
        5,
        &[
            "sealwire-client",
            "sealwire-engine",
            "sealwire-keys",
            "sealwire-relay-core",
            "sealwire-session",
            "sealwire-store",
            "sealwire-store-sqlite",
            "sealwire-wire",
        ],
    ),
    (
        "sealwire-fuzz",
        4,
        &[
            "sealwire-engine",
            "sealwire-keys",
            "sealwire-relay-core",
            "sealwire-session",
            "sealwire-store",
            "sealwire-wire",
        ],
    ),
    // It shares nothing with ours, and is read beside them in its tests.
    ("sealwire-interop-mls-rs", 1, &[]),
    ("xtask", 1, &[]),
];

const LEVELS: u8 = 5;

/// Crates without async, sockets, files, clocks and randomness of their own ("Pure minds"). What a dependency does inside
/// a call is not looked at: OpenMLS has rayon's threads (ARCHITECTURE.md).
pub(crate) const PURE: &[&str] =
    &["sealwire-wire", "sealwire-keys", "sealwire-session", "sealwire-engine", "sealwire-relay-core", "sealwire-store"];

/// What a pure crate does not depend on by itself.
const IMPURE: &[&str] = &[
    "async-trait",
    "axum",
    "chrono",
    "futures",
    "futures-util",
    "getrandom",
    "hyper",
    "mio",
    "rand",
    "rusqlite",
    "rustls",
    "socket2",
    "tempfile",
    "time",
    "tokio",
    "tracing-subscriber",
];

/// A package of the workspace, and what it depends on outside of tests.
pub(crate) type Packages = BTreeMap<String, Vec<String>>;

/// The packages, as Cargo sees them.
pub(crate) fn packages(workspace: &Workspace) -> Packages {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let shipped = |package: &Value| {
        let dependencies = list(&package["dependencies"]);
        dependencies.iter().filter(|dependency| dependency["kind"] != "dev").map(name).collect()
    };
    list(&workspace.metadata["packages"]).iter().map(|package| (name(package), shipped(package))).collect()
}

/// The table and the manifests say the same, and the table is in order.
pub(crate) fn edges(packages: &Packages) -> Vec<String> {
    let mut complaints = levels(CRATES);
    for (name, dependencies) in packages {
        let Some((_, _, allowed)) = CRATES.iter().find(|(row, ..)| row == name) else {
            complaints.push(format!("{name} is missing from the table in xtask/src/manifest.rs"));
            continue;
        };
        let mut actual: Vec<&str> = dependencies.iter().map(String::as_str).collect();
        actual.retain(|dependency| packages.contains_key(*dependency));
        let added = actual.iter().filter(|dependency| !allowed.contains(dependency));
        complaints.extend(added.map(|added| format!("{name} depends on {added}, which the table does not allow")));
        let gone = allowed.iter().filter(|dependency| !actual.contains(dependency));
        complaints.extend(gone.map(|gone| format!("{name} does not depend on {gone}, which the table says")));
    }
    let absent = CRATES.iter().filter(|(row, ..)| !packages.contains_key(*row));
    complaints.extend(absent.map(|(row, ..)| format!("{row} is in the table and not in the workspace")));
    complaints
}

fn levels(rows: &[Row]) -> Vec<String> {
    let level = |name: &str| rows.iter().find(|(row, ..)| *row == name).map_or(0, |(_, level, _)| *level);
    let mut complaints = Vec::new();
    for (name, own, dependencies) in rows {
        if !(1..=LEVELS).contains(own) {
            complaints.push(format!("{name} is on level {own} of {LEVELS}"));
        }
        let up = dependencies.iter().filter(|dependency| level(dependency) > *own);
        complaints.extend(up.map(|up| format!("{name} depends on {up}, which is above it")));
    }
    complaints
}

/// No pure crate depends on what it must not do.
pub(crate) fn pure(packages: &Packages) -> Vec<String> {
    let none = Vec::new();
    let mut complaints = Vec::new();
    for name in PURE {
        let dependencies = packages.get(*name).unwrap_or(&none);
        let impure = dependencies.iter().filter(|dependency| IMPURE.contains(&dependency.as_str()));
        complaints.extend(impure.map(|impure| format!("{name} depends on {impure}: the shell does that")));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_the_table_says() -> Packages {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        CRATES.iter().map(|(name, _, dependencies)| ((*name).to_owned(), owned(dependencies))).collect()
    }

    #[test]
    fn the_table_itself_is_in_order() {
        assert_eq!(edges(&as_the_table_says()), Vec::<String>::new());
    }

    #[test]
    fn an_edge_that_is_not_in_the_table_is_complained_about() {
        let mut packages = as_the_table_says();
        packages.get_mut("sealwire-relay").unwrap().push("sealwire-session".into());
        assert_eq!(edges(&packages), ["sealwire-relay depends on sealwire-session, which the table does not allow"]);
    }

    #[test]
    fn an_edge_that_is_gone_and_a_crate_that_is_new_are_complained_about() {
        let mut packages = as_the_table_says();
        packages.get_mut("sealwire-keys").unwrap().clear();
        packages.insert("sealwire-helpers".into(), Vec::new());
        assert_eq!(edges(&packages).len(), 2);
    }

    #[test]
    fn an_edge_upwards_and_a_sixth_level_are_complained_about() {
        assert_eq!(levels(&[("a", 1, &["b"]), ("b", 2, &[])]), ["a depends on b, which is above it"]);
        assert_eq!(levels(&[("a", 6, &[])]), ["a is on level 6 of 5"]);
    }

    #[test]
    fn a_pure_crate_with_a_runtime_is_complained_about() {
        let mut packages = as_the_table_says();
        packages.get_mut("sealwire-engine").unwrap().push("tokio".into());
        assert_eq!(pure(&packages), ["sealwire-engine depends on tokio: the shell does that"]);
    }
}
