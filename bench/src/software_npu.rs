//! Which CANN to use, and the software NPU beside this program where there is none.

use std::path::{Path, PathBuf};
use std::process::Command;

use cann_sys::LoadOptions;

/// Says where CANN is, before anything else; the engine's library reads it too.
const CANN_PATH: &str = "MOONCAKE_TRANSFER_CANN_PATH";
/// The vendor's own variables, set by `set_env.sh`.
const ASCEND_HOME: &str = "ASCEND_HOME_PATH";
const ASCEND_TOOLKIT: &str = "ASCEND_TOOLKIT_HOME";

/// Whether somebody has said which CANN to use.
#[must_use]
pub fn is_cann_configured() -> bool {
    [CANN_PATH, ASCEND_HOME, ASCEND_TOOLKIT].iter().any(|name| std::env::var_os(name).is_some())
}

/// Where to look for CANN, as the environment says; the same as the engine's library does.
#[must_use]
pub fn load_options() -> LoadOptions {
    let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    LoadOptions {
        cann_path: path(CANN_PATH),
        ascend_home_path: path(ASCEND_HOME),
        ascend_toolkit_home: path(ASCEND_TOOLKIT),
        ..LoadOptions::default()
    }
}

/// The software NPU that was built or installed with this program.
#[must_use]
pub fn find() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let directory = program.parent()?;
    [directory.join("cann-sim"), directory.join("../lib/cann-sim")].into_iter().find(|path| path.is_dir())
}

/// Gives a child process the software NPU in `directory`, two devices apart from those of other programs.
pub fn give(command: &mut Command, directory: &Path) {
    command
        .env(CANN_PATH, directory)
        .env("CANN_SIM_NAMESPACE", format!("bench-{}", std::process::id()))
        .env("CANN_SIM_DEVICE_COUNT", "2")
        .env_remove(ASCEND_HOME)
        .env_remove(ASCEND_TOOLKIT)
        .env_remove("ASCEND_RT_VISIBLE_DEVICES");
}
