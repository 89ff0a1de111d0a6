//! Which library has which function in the installed release.

use cann_sys::functions::{Symbol, symbols};
use cann_sys::{Library, Release};

use super::cases;
use crate::case::{Answer, Stop};
use crate::probe::Probe;

cases! {
    functions_of_the_release, "1.2",
        "Does this release have the functions the sheet gives it, and no others?";
    one_sided_functions, "8.1",
        "Which library exports the communicator family, and does this release have it?";
    device_id_functions, "8.2", "Does this release translate device ids through the public interface?";
    library_of_the_runtime, "8.3", "Does libascendcl.so have the runtime itself, or by dependency?";
}

/// The oldest and the newest release with the version number this CANN answers.
fn releases(probe: &Probe) -> Answer<(Release, Release)> {
    let version = probe.acl_version()?;
    match version {
        (1, 13) => Ok((Release::V8_1, Release::V8_1)),
        (1, 14) => Ok((Release::V8_2, Release::V8_2)),
        (1, 15) => Ok((Release::V8_3, Release::V8_3)),
        (1, 16) => Ok((Release::V8_5, Release::V8_5)),
        (1, 17) => Ok((Release::V9_0, Release::V9_1)), // the number stands still from 9.0 on
        (major, minor) => Err(Stop::Cannot(format!("the sheet has no release with ACL {major}.{minor}"))),
    }
}

/// Compares what was found with the list of releases; what the sheet leaves open is only told.
fn judge(probe: &Probe, wanted: impl Fn(&Symbol) -> bool, tell_all: bool) -> Answer {
    let (oldest, newest) = releases(probe)?;
    let mut agreeing = 0_usize;
    let mut judged = 0_usize;
    for report in probe.cann.symbol_report() {
        let symbol = report.symbol;
        if !wanted(symbol) {
            continue;
        }
        let file = report.found_in.as_deref().and_then(|path| path.file_name());
        let seen = file.map_or("absent".to_owned(), |name| name.to_string_lossy().into_owned());
        let since = symbol.since;
        let expected = match (
            symbol.library,
            since.certain <= oldest,
            newest < since.perhaps.unwrap_or(since.certain),
        ) {
            (_, _, true) => "absent",
            (Library::Acl, true, _) if oldest >= Release::V8_5 => "libacl_rt.so",
            (Library::Acl, true, _) => "libascendcl.so",
            (Library::Hccl, true, _) if oldest >= Release::V8_5 => "libhcomm.so",
            (Library::Hccl, true, _) => "libhccl.so",
            (Library::Runtime, true, _) => "libruntime.so",
            _ => {
                if tell_all {
                    probe.measured(&format!("{} (the sheet leaves it open)", symbol.name), seen);
                }
                continue;
            }
        };
        judged += 1;
        if seen == expected {
            agreeing += 1;
        }
        if tell_all || seen != expected {
            probe.value(symbol.name, expected.to_owned(), seen);
        }
    }
    probe.value("functions that agree", judged, agreeing);
    Ok(())
}

fn functions_of_the_release(probe: &mut Probe) -> Answer {
    probe.measured("functions the sheet lists", symbols().count());
    judge(probe, |_| true, false)
}

fn one_sided_functions(probe: &mut Probe) -> Answer {
    judge(probe, |symbol| symbol.library == Library::Hccl, true)
}

fn device_id_functions(probe: &mut Probe) -> Answer {
    judge(
        probe,
        |symbol| {
            symbol.name.contains("DevIdBy")
                || symbol.name == "aclrtGetDeviceInfo"
                || symbol.library == Library::Runtime
        },
        true,
    )
}

fn library_of_the_runtime(probe: &mut Probe) -> Answer {
    for found in probe.cann.provenance() {
        let name = found.path.file_name().map(|name| name.to_string_lossy().into_owned());
        probe.measured("opened", name.unwrap_or_default());
    }
    judge(probe, |symbol| symbol.name == "aclrtSetDevice", true)
}
