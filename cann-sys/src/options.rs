//! Where CANN may be. Everything is explicit: this crate reads no environment variable.

use crate::functions::Library;
use core::fmt;
use std::path::{Path, PathBuf};

/// Directories to search, in order of declaration, after what the process has loaded already.
///
/// Empty paths are skipped. A directory stands for itself (only [`LoadOptions::cann_path`]), its `lib64`
/// and its `<architecture>-linux/lib64`.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// A directory somebody chose for us: an installation or the directory of the libraries themselves.
    pub cann_path: Option<PathBuf>,
    /// The installation named by the vendor's `ASCEND_HOME_PATH`.
    pub ascend_home_path: Option<PathBuf>,
    /// The installation named by the vendor's `ASCEND_TOOLKIT_HOME`.
    pub ascend_toolkit_home: Option<PathBuf>,
    /// Whether to ask the linker for the bare file names (`LD_LIBRARY_PATH`, `ld.so.cache`).
    pub loader_path: bool,
    /// Installations to try last. A last component that ends in `*` stands for every directory with that
    /// beginning, the highest version first.
    pub default_prefixes: Vec<PathBuf>,
    /// Where the driver's libraries are. Nothing of ours is searched here; CANN's own libraries need them,
    /// and find them by themselves only after the vendor's `set_env.sh`.
    pub driver_directories: Vec<PathBuf>,
}

impl Default for LoadOptions {
    /// No directory of the caller's, the linker's search, and the places the vendor installs to.
    fn default() -> Self {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect();
        Self {
            cann_path: None,
            ascend_home_path: None,
            ascend_toolkit_home: None,
            loader_path: true,
            default_prefixes: paths(&[
                "/usr/local/Ascend/ascend-toolkit/latest",
                "/usr/local/Ascend/cann",
                "/usr/local/Ascend/cann-*",
                "/usr/local/Ascend/latest",
                "/usr/local/Ascend/nnae/latest",
                "/usr/local/Ascend/nnrt/latest",
            ]),
            driver_directories: paths(&[
                "/usr/local/Ascend/driver/lib64",
                "/usr/local/Ascend/driver/lib64/driver",
                "/usr/local/Ascend/driver/lib64/common",
            ]),
        }
    }
}

impl LoadOptions {
    /// Only `directory` and what is loaded already: no linker search, no default places.
    #[must_use]
    pub fn only(directory: impl Into<PathBuf>) -> Self {
        Self {
            cann_path: Some(directory.into()),
            loader_path: false,
            default_prefixes: Vec::new(),
            driver_directories: Vec::new(),
            ..Self::default()
        }
    }

    /// The files that could be `file_name`, in order of preference.
    pub(crate) fn candidates(&self, file_name: &str) -> Vec<(Place, PathBuf)> {
        let mut candidates = Vec::new();
        let mut add = |place, directories: Vec<PathBuf>| {
            candidates.extend(directories.into_iter().map(|directory| (place, directory.join(file_name))));
        };
        if let Some(path) = given(self.cann_path.as_deref()) {
            let mut directories = vec![path.to_owned()];
            directories.extend(library_directories(path));
            add(Place::CannPath, directories);
        }
        if let Some(path) = given(self.ascend_home_path.as_deref()) {
            add(Place::AscendHomePath, library_directories(path));
        }
        if let Some(path) = given(self.ascend_toolkit_home.as_deref()) {
            add(Place::AscendToolkitHome, library_directories(path));
        }
        if self.loader_path {
            add(Place::LoaderPath, vec![PathBuf::new()]);
        }
        for prefix in self.default_prefixes.iter().filter_map(|prefix| given(Some(prefix))) {
            for path in expand(prefix) {
                add(Place::DefaultPrefix, library_directories(&path));
            }
        }
        candidates
    }
}

fn given(path: Option<&Path>) -> Option<&Path> {
    path.filter(|path| !path.as_os_str().is_empty())
}

/// Where an installation keeps libraries. Relative paths are made to begin with a dot, because the linker
/// takes a name without a slash for one to search.
fn library_directories(root: &Path) -> Vec<PathBuf> {
    let architecture = format!("{}-linux", std::env::consts::ARCH);
    vec![root.join("lib64"), root.join(architecture).join("lib64")]
}

/// `prefix`, or the directories that its trailing `*` stands for; itself if there are none, so that it
/// shows up among the paths tried.
fn expand(prefix: &Path) -> Vec<PathBuf> {
    let beginning = prefix.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix('*'));
    let (Some(beginning), Some(parent)) = (beginning, prefix.parent()) else {
        return vec![prefix.to_owned()];
    };
    let mut found: Vec<(Vec<u64>, PathBuf)> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix(beginning)?;
            Some((version_numbers(version), entry.path()))
        })
        .collect();
    // Path as second key: two spellings of one version must not change places from run to run.
    found.sort_by(|left, right| right.cmp(left));
    if found.is_empty() { vec![prefix.to_owned()] } else { found.into_iter().map(|(_, path)| path).collect() }
}

/// The numbers in a version text: `9.0.0.B10` is 9, 0, 0, 10. What does not fit counts as the largest.
fn version_numbers(version: &str) -> Vec<u64> {
    version
        .split(|character: char| !character.is_ascii_digit())
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().unwrap_or(u64::MAX))
        .collect()
}

/// Why a path was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Place {
    /// The process had loaded it before we asked.
    AlreadyLoaded,
    /// It stands beside another library of CANN that is loaded.
    Beside(Library),
    /// [`LoadOptions::cann_path`]
    CannPath,
    /// [`LoadOptions::ascend_home_path`]
    AscendHomePath,
    /// [`LoadOptions::ascend_toolkit_home`]
    AscendToolkitHome,
    /// The linker's own search.
    LoaderPath,
    /// [`LoadOptions::default_prefixes`]
    DefaultPrefix,
    /// [`LoadOptions::driver_directories`] or the directory of the library that needs it.
    Dependency,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyLoaded => formatter.write_str("already loaded by the process"),
            Self::Beside(library) => write!(formatter, "beside the {library}"),
            Self::CannPath => formatter.write_str("explicit CANN path"),
            Self::AscendHomePath => formatter.write_str("ASCEND_HOME_PATH"),
            Self::AscendToolkitHome => formatter.write_str("ASCEND_TOOLKIT_HOME"),
            Self::LoaderPath => formatter.write_str("loader path"),
            Self::DefaultPrefix => formatter.write_str("default place"),
            Self::Dependency => formatter.write_str("needed by a CANN library"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_in_the_documented_order() {
        let options = LoadOptions {
            cann_path: Some("/chosen".into()),
            ascend_home_path: Some("/home".into()),
            ascend_toolkit_home: Some("/toolkit".into()),
            default_prefixes: vec!["/prefix".into()],
            ..LoadOptions::default()
        };
        let architecture = std::env::consts::ARCH;
        let expected = [
            (Place::CannPath, "/chosen/libx.so".to_owned()),
            (Place::CannPath, "/chosen/lib64/libx.so".to_owned()),
            (Place::CannPath, format!("/chosen/{architecture}-linux/lib64/libx.so")),
            (Place::AscendHomePath, "/home/lib64/libx.so".to_owned()),
            (Place::AscendHomePath, format!("/home/{architecture}-linux/lib64/libx.so")),
            (Place::AscendToolkitHome, "/toolkit/lib64/libx.so".to_owned()),
            (Place::AscendToolkitHome, format!("/toolkit/{architecture}-linux/lib64/libx.so")),
            (Place::LoaderPath, "libx.so".to_owned()),
            (Place::DefaultPrefix, "/prefix/lib64/libx.so".to_owned()),
            (Place::DefaultPrefix, format!("/prefix/{architecture}-linux/lib64/libx.so")),
        ];
        let found = options.candidates("libx.so");
        let expected: Vec<_> =
            expected.into_iter().map(|(place, path)| (place, PathBuf::from(path))).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn empty_paths_are_skipped() {
        let options = LoadOptions {
            ascend_home_path: Some(PathBuf::new()),
            ascend_toolkit_home: Some(PathBuf::new()),
            default_prefixes: vec![PathBuf::new()],
            ..LoadOptions::only("")
        };
        assert_eq!(options.candidates("libx.so"), []);
    }

    #[test]
    fn a_star_is_the_highest_version_first() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["cann-9.0.0", "cann-10.0.0", "cann-9.1.0-beta.1", "other"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let names: Vec<_> = expand(&directory.path().join("cann-*"))
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["cann-10.0.0", "cann-9.1.0-beta.1", "cann-9.0.0"]);
        let nothing = directory.path().join("absent-*");
        assert_eq!(expand(&nothing), [nothing]);
    }
}
