//! Finding CANN, and what was found.
//!
//! Invariants: nothing is opened twice under two paths; a library once open stays open; the tables hold
//! only functions of open libraries. Order of search: what the process has loaded; beside that; the places
//! of [`LoadOptions`] in their order.

use crate::capability::{Capabilities, Capability};
use crate::dynamic::{self, Handle};
use crate::error::{Attempt, AttemptFailure, LoadError, MissingSymbols, Provenance};
use crate::functions::{self, Acl, Hccl, Library, Runtime, Symbol};
use crate::options::{LoadOptions, Place};
use std::path::{Path, PathBuf};

/// A library that needs more libraries than this one after another is not one of CANN's.
const DEPENDENCY_LIMIT: usize = 64;

/// The loaded CANN. Cheap to keep, and meant to be kept for the rest of the process.
#[derive(Debug)]
pub struct Cann {
    /// The ACL runtime.
    pub acl: Acl,
    /// HCCL.
    pub hccl: Hccl,
    /// The inner runtime.
    pub runtime: Runtime,
    capabilities: Capabilities,
    provenance: Vec<Provenance>,
    attempts: Vec<Attempt>,
    /// Every function and its address (0 if it was not found), in the order of [`functions::symbols`].
    addresses: Vec<(&'static Symbol, usize)>,
}

/// What became of one function: a line for a report to a person.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SymbolReport {
    /// The function, its library, what needs it and since when it exists.
    pub symbol: &'static Symbol,
    /// The file that has it; `None` if it was not found.
    pub found_in: Option<PathBuf>,
}

impl Cann {
    /// Finds and opens the ACL runtime and HCCL.
    ///
    /// Succeeds if both libraries are there, even if functions are missing: [`Cann::require`] says so when
    /// they are needed. Runs constructors of the vendor's libraries, but calls none of their functions.
    ///
    /// # Errors
    /// [`LoadError`] with every path tried, if one of the two was not found.
    pub fn load(options: &LoadOptions) -> Result<Self, LoadError> {
        let mut search = Search { options, opened: Vec::new(), attempts: Vec::new() };
        search.find(Library::Acl);
        search.find(Library::Hccl);
        let missing: Vec<_> =
            [Library::Acl, Library::Hccl].into_iter().filter(|library| !search.has(*library)).collect();
        if !missing.is_empty() {
            return Err(LoadError {
                missing,
                libraries_found: search.opened.into_iter().map(|opened| opened.provenance).collect(),
                attempts: search.attempts,
            });
        }
        search.complete(Library::Acl, Acl::SYMBOLS);
        search.complete(Library::Hccl, Hccl::SYMBOLS);
        search.find_inner_runtime();
        Ok(search.finish())
    }

    /// The open libraries: which file each is mapped from, and how it was found.
    #[must_use]
    pub fn provenance(&self) -> &[Provenance] {
        &self.provenance
    }

    /// Paths that were tried in vain before, including copies that were refused.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// What this CANN can do, as far as its functions tell.
    #[must_use]
    pub const fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Whether this CANN has `capability`.
    #[must_use]
    pub const fn has(&self, capability: Capability) -> bool {
        self.capabilities.contains(capability)
    }

    /// Makes sure that every function of `capability` is there.
    ///
    /// # Errors
    /// [`MissingSymbols`]: the functions, the libraries searched, and the release that has them.
    pub fn require(&self, capability: Capability) -> Result<(), MissingSymbols> {
        if self.has(capability) {
            return Ok(());
        }
        let symbols = self
            .addresses
            .iter()
            .filter(|(symbol, address)| *address == 0 && symbol.capabilities.contains(&capability))
            .map(|(symbol, _)| *symbol)
            .collect();
        Err(self.missing(Some(capability), symbols, Vec::new()))
    }

    /// [`Cann::require`] for each of [`Capability::REQUIRED`], and for one of [`Capability::ONE_SIDED_FAMILIES`].
    ///
    /// # Errors
    /// [`MissingSymbols`] of the first that is not complete; of the families, the newest of those that lack least.
    pub fn require_all(&self) -> Result<(), MissingSymbols> {
        Capability::REQUIRED.into_iter().try_for_each(|capability| self.require(capability))?;
        let mut least: Option<MissingSymbols> = None;
        for family in Capability::ONE_SIDED_FAMILIES {
            let Err(missing) = self.require(family) else { return Ok(()) };
            if least.as_ref().is_none_or(|least| missing.symbols.len() < least.symbols.len()) {
                least = Some(missing);
            }
        }
        least.map_or(Ok(()), Err)
    }

    /// The error for a caller that found a table's field empty.
    #[must_use]
    pub fn missing_symbol(&self, name: &str) -> MissingSymbols {
        match functions::find(name) {
            Some(symbol) => self.missing(None, vec![symbol], Vec::new()),
            None => self.missing(None, Vec::new(), vec![name.to_owned()]),
        }
    }

    /// The number of the release that certainly has a function, such as `8.5.0`; `None` for a name that is
    /// not in the list. [`Cann::missing_symbol`] tells more.
    #[must_use]
    pub fn since(&self, name: &str) -> Option<&'static str> {
        functions::find(name).map(|symbol| symbol.since.certain.version())
    }

    /// Every function with the file that has it.
    #[must_use]
    pub fn symbol_report(&self) -> Vec<SymbolReport> {
        self.addresses
            .iter()
            .map(|(symbol, address)| SymbolReport {
                symbol,
                found_in: if *address == 0 { None } else { dynamic::object_of(*address) },
            })
            .collect()
    }

    fn missing(
        &self,
        capability: Option<Capability>,
        symbols: Vec<&'static Symbol>,
        unknown: Vec<String>,
    ) -> MissingSymbols {
        let concerns = |library| symbols.iter().any(|symbol| symbol.library == library);
        MissingSymbols {
            capability,
            searched: self.provenance.iter().filter(|found| concerns(found.library)).cloned().collect(),
            attempts: self.attempts.iter().filter(|attempt| concerns(attempt.library)).cloned().collect(),
            symbols,
            unknown,
        }
    }
}

/// A library that is open.
struct Opened {
    handle: Handle,
    provenance: Provenance,
    file_name: &'static str,
}

/// One run of [`Cann::load`].
struct Search<'options> {
    options: &'options LoadOptions,
    opened: Vec<Opened>,
    attempts: Vec<Attempt>,
}

impl Search<'_> {
    fn has(&self, library: Library) -> bool {
        self.opened.iter().any(|opened| opened.provenance.library == library)
    }

    /// Opens the first file that does, unless the process has the library already.
    fn find(&mut self, library: Library) {
        for file_name in library.file_names() {
            if let Some(handle) = dynamic::already_loaded(file_name) {
                self.add(library, file_name, handle, Place::AlreadyLoaded);
            }
        }
        let candidates = self.candidates(library);
        if self.has(library) {
            // Somebody's wish for another copy is not followed, but it is told.
            self.report_refusals(library, &candidates);
            return;
        }
        for (place, file_name, path) in candidates {
            if self.try_open(library, file_name, &path, place) {
                return;
            }
        }
    }

    /// The paths for a library: beside the ACL runtime first, since HCCL of one installation on the runtime
    /// of another would be a pair nobody has tested; then the options' places.
    fn candidates(&self, library: Library) -> Vec<(Place, &'static str, PathBuf)> {
        let mut candidates = Vec::new();
        if library != Library::Acl {
            candidates
                .extend(self.beside(Library::Acl, library).into_iter().filter(|(_, _, path)| path.exists()));
        }
        // Grouped by directory: an older file name in an earlier place comes before a newer one in a later.
        let lists: Vec<_> = library
            .file_names()
            .iter()
            .map(|file_name| (*file_name, self.options.candidates(file_name)))
            .collect();
        let length = lists.iter().map(|(_, list)| list.len()).max().unwrap_or(0);
        for index in 0..length {
            for (file_name, list) in &lists {
                if let Some((place, path)) = list.get(index) {
                    candidates.push((*place, *file_name, path.clone()));
                }
            }
        }
        candidates
    }

    /// The files of `library` beside those of `neighbour`, by the linker's path and by the resolved one.
    fn beside(&self, neighbour: Library, library: Library) -> Vec<(Place, &'static str, PathBuf)> {
        let mut directories: Vec<PathBuf> = Vec::new();
        for opened in self.opened.iter().filter(|opened| opened.provenance.library == neighbour) {
            let path = &opened.provenance.path;
            let resolved = std::fs::canonicalize(path).ok();
            for path in [Some(path), resolved.as_ref()].into_iter().flatten() {
                if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty())
                    && !directories.iter().any(|known| known == directory)
                {
                    directories.push(directory.to_owned());
                }
            }
        }
        directories
            .into_iter()
            .flat_map(|directory| {
                library
                    .file_names()
                    .iter()
                    .map(move |file_name| (Place::Beside(neighbour), *file_name, directory.join(file_name)))
            })
            .collect()
    }

    fn add(&mut self, library: Library, file_name: &'static str, handle: Handle, place: Place) {
        let path = dynamic::mapped_path(handle).unwrap_or_else(|| PathBuf::from(file_name));
        self.opened.push(Opened { handle, file_name, provenance: Provenance { library, path, place } });
    }

    /// Opens `path` unless that would be a second copy; says whether the library is open now.
    fn try_open(&mut self, library: Library, file_name: &'static str, path: &Path, place: Place) -> bool {
        let result = match dynamic::already_loaded(file_name) {
            Some(handle) => match second_copy(handle, path) {
                Some(loaded) => Err(AttemptFailure::SecondCopy { loaded }),
                None => Ok(handle),
            },
            None => self.open_with_dependencies(library, path).map_err(AttemptFailure::NotOpened),
        };
        match result {
            Ok(handle) => {
                self.add(library, file_name, handle, place);
                true
            }
            Err(failure) => {
                self.attempts.push(Attempt { library, path: path.to_owned(), place, failure });
                false
            }
        }
    }

    /// Opens a library and, where the linker does not find what it needs, that first.
    ///
    /// CANN's libraries need the driver's, which are on no default path of the linker. The vendor's answer
    /// is an environment variable that must be set before the process starts; ours is to open the needed
    /// one by path, after which the linker knows it by its SONAME.
    fn open_with_dependencies(&mut self, library: Library, path: &Path) -> Result<Handle, String> {
        let mut target = path.to_owned();
        let mut waiting: Vec<PathBuf> = Vec::new();
        for _ in 0..DEPENDENCY_LIMIT {
            match dynamic::open(&target) {
                Ok(handle) => match waiting.pop() {
                    None => return Ok(handle),
                    Some(dependent) => target = dependent,
                },
                Err(text) => {
                    let dependency = missing_dependency(&text, &target)
                        .and_then(|name| self.find_dependency(library, &target, name))
                        .filter(|found| *found != target && !waiting.contains(found));
                    match dependency {
                        Some(found) => waiting.push(core::mem::replace(&mut target, found)),
                        None if waiting.is_empty() => return Err(text),
                        None => return Err(format!("needs {}: {text}", target.display())),
                    }
                }
            }
        }
        Err(format!("needs more than {DEPENDENCY_LIMIT} libraries that the linker does not find"))
    }

    /// Where a library that CANN's library at `dependent` needs is: beside it, or with the driver.
    fn find_dependency(&mut self, library: Library, dependent: &Path, name: &str) -> Option<PathBuf> {
        if let Some(handle) = dynamic::already_loaded(name) {
            // Loaded but not known by that name to the linker: opening another copy would not help.
            self.attempts.push(Attempt {
                library,
                path: PathBuf::from(name),
                place: Place::Dependency,
                failure: AttemptFailure::SecondCopy { loaded: dynamic::mapped_path(handle)? },
            });
            return None;
        }
        let own = dependent.parent().filter(|directory| !directory.as_os_str().is_empty());
        own.into_iter()
            .chain(self.options.driver_directories.iter().map(PathBuf::as_path))
            .filter(|directory| !directory.as_os_str().is_empty())
            .map(|directory| directory.join(name))
            .find(|path| path.is_file())
    }

    /// Records the candidates that exist and are another copy of what is loaded.
    fn report_refusals(&mut self, library: Library, candidates: &[(Place, &'static str, PathBuf)]) {
        for (place, file_name, path) in candidates {
            let loaded = self.opened.iter().find(|opened| opened.file_name == *file_name);
            let explicit = matches!(place, Place::CannPath);
            if let Some(opened) = loaded.filter(|_| explicit && path.exists())
                && let Some(loaded) = second_copy(opened.handle, path)
            {
                let failure = AttemptFailure::SecondCopy { loaded };
                self.attempts.push(Attempt { library, path: path.clone(), place: *place, failure });
            }
        }
    }

    /// Opens the other files of a library if functions are missing: a release in between may have moved
    /// only some of them. Only what is loaded or stands beside, never from another installation.
    fn complete(&mut self, library: Library, symbols: &[Symbol]) {
        for file_name in library.file_names() {
            let complete = symbols.iter().all(|symbol| !self.address_of(library, symbol.name).is_null());
            if complete {
                return;
            }
            if self.opened.iter().any(|opened| opened.file_name == *file_name) {
                continue;
            }
            if let Some(handle) = dynamic::already_loaded(file_name) {
                self.add(library, file_name, handle, Place::AlreadyLoaded);
                continue;
            }
            for (place, name, path) in self.beside(library, library) {
                if name == *file_name && path.exists() && self.try_open(library, name, &path, place) {
                    break;
                }
            }
        }
    }

    /// The inner runtime is what ACL stands on, so it is loaded by now if it is to be had. Otherwise it is
    /// opened beside ACL and nowhere else; nothing depends on its being there.
    fn find_inner_runtime(&mut self) {
        for file_name in Library::Runtime.file_names() {
            if let Some(handle) = dynamic::already_loaded(file_name) {
                self.add(Library::Runtime, file_name, handle, Place::AlreadyLoaded);
                return;
            }
        }
        for (place, file_name, path) in self.beside(Library::Acl, Library::Runtime) {
            if path.exists() && self.try_open(Library::Runtime, file_name, &path, place) {
                return;
            }
        }
    }

    /// Looks a name up in every open file of a library, in the order in which they were opened. Functions
    /// of the inner runtime are also looked for through ACL, whose handle reaches what it depends on.
    fn address_of(&self, library: Library, name: &str) -> *mut core::ffi::c_void {
        let serves =
            |found: Library| found == library || (library == Library::Runtime && found == Library::Acl);
        self.opened
            .iter()
            .filter(|opened| serves(opened.provenance.library))
            .map(|opened| dynamic::address_of(opened.handle, name))
            .find(|address| !address.is_null())
            .unwrap_or(core::ptr::null_mut())
    }

    fn finish(self) -> Cann {
        let addresses: Vec<_> = functions::symbols()
            .map(|symbol| (symbol, self.address_of(symbol.library, symbol.name).addr()))
            .collect();
        let has = |wanted: &Capability| {
            addresses.iter().all(|(symbol, address)| *address != 0 || !symbol.capabilities.contains(wanted))
        };
        let capabilities = Capability::ALL.into_iter().filter(has).collect();
        // SAFETY: each address is what dlsym answered for the name in a CANN library, and libraries opened
        // by `dynamic` are never unloaded.
        let acl = unsafe { Acl::resolve(|name| self.address_of(Library::Acl, name)) };
        // SAFETY: as above.
        let hccl = unsafe { Hccl::resolve(|name| self.address_of(Library::Hccl, name)) };
        // SAFETY: as above.
        let runtime = unsafe { Runtime::resolve(|name| self.address_of(Library::Runtime, name)) };
        Cann {
            acl,
            hccl,
            runtime,
            capabilities,
            provenance: self.opened.into_iter().map(|opened| opened.provenance).collect(),
            attempts: self.attempts,
            addresses,
        }
    }
}

/// The file that is loaded, if opening `path` would load another one. A bare name is the linker's business:
/// it answers with what is loaded.
fn second_copy(loaded: Handle, path: &Path) -> Option<PathBuf> {
    let loaded = dynamic::mapped_path(loaded)?;
    let bare = path.components().count() == 1 && !path.has_root();
    if bare || dynamic::same_file(&loaded, path) { None } else { Some(loaded) }
}

/// The library that the linker did not find, if the text says that `target` needs one.
///
/// The text begins with the name of the object that failed, followed by a colon, in every language; a bare
/// library name other than the target's own is one that the target needs.
fn missing_dependency<'text>(text: &'text str, target: &Path) -> Option<&'text str> {
    let (name, _) = text.split_once(": ")?;
    let is_library = name.ends_with(".so") || name.contains(".so.");
    let is_target = target.as_os_str() == name;
    (is_library && !is_target && !name.contains('/')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One process has one CANN, used from every thread.
    #[test]
    fn shared_between_threads() {
        fn assert_send_and_sync<T: Send + Sync + 'static>() {}
        assert_send_and_sync::<Cann>();
        assert_send_and_sync::<Acl>();
        assert_send_and_sync::<Hccl>();
        assert_send_and_sync::<Runtime>();
        assert_send_and_sync::<LoadError>();
        assert_send_and_sync::<MissingSymbols>();
        assert_send_and_sync::<LoadOptions>();
    }

    #[test]
    fn dependency_is_read_from_the_linkers_text() {
        let target = Path::new("/cann/lib64/libascendcl.so");
        let absent = "libascend_hal.so: cannot open shared object file: No such file or directory";
        assert_eq!(missing_dependency(absent, target), Some("libascend_hal.so"));
        let versioned = "libc_sec.so.2: cannot open shared object file: No such file or directory";
        assert_eq!(missing_dependency(versioned, target), Some("libc_sec.so.2"));
        let itself = "/cann/lib64/libascendcl.so: cannot open shared object file: No such file or directory";
        assert_eq!(missing_dependency(itself, target), None);
        let bare = "libascendcl.so: cannot open shared object file: No such file or directory";
        assert_eq!(missing_dependency(bare, Path::new("libascendcl.so")), None);
        let broken = "/cann/lib64/libother.so: undefined symbol: rtMalloc";
        assert_eq!(missing_dependency(broken, target), None);
    }
}
