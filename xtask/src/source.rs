//! The files of the tree, as Git knows them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Failure, Workspace, output, with_path};

/// A Rust file of ours.
pub(crate) struct RustFile {
    /// From the workspace's root.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// Every file that is tracked, or new and not ignored. From the workspace's root.
pub(crate) fn files(workspace: &Workspace) -> Result<Vec<PathBuf>, Failure> {
    let mut command = Command::new("git");
    command.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(&workspace.root);
    let listed = output(&mut command)?;
    let paths = listed.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from);
    // One that is deleted and not committed yet is still listed.
    Ok(paths.filter(|path| workspace.root.join(path).is_file()).collect())
}

/// The Rust files among them.
pub(crate) fn rust_files(workspace: &Workspace) -> Result<Vec<RustFile>, Failure> {
    let paths =
        files(workspace)?.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    paths.map(|path| Ok(RustFile { text: read(&workspace.root.join(&path))?, path })).collect()
}

pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(with_path(path))
}
