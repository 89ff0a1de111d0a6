//! The log on standard error, one line per event and one write per line, and the switch to a sink.
//!
//! Form: `W 2026-11-22T12:00:00.123456Z 4711/4713 mooncake::engine: text`. The level comes from
//! `MC_LOG_LEVEL` when the first engine is made, or from `mooncake_transfer_set_log`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Once;
use std::time::{SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};
use mooncake::config::Config;

use crate::log_sink;

struct Face;

static FACE: Face = Face;

/// What is logged until the settings are read, and when they do not say.
const DEFAULT_LEVEL: LevelFilter = LevelFilter::Info;

/// Makes this the log of the library, once.
///
/// Only another Rust program that links this library statically can have set one before; then that one stays.
pub(crate) fn install() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        if log::set_logger(&FACE).is_ok() {
            log::set_max_level(DEFAULT_LEVEL);
        }
    });
}

/// Reads the settings with the log in place, so that what they complain of is seen, and takes the level from
/// the first ones read, unless the caller has chosen one.
pub(crate) fn with_log(read: impl FnOnce() -> Config) -> Config {
    static LEVEL: Once = Once::new();
    install();
    let config = read();
    LEVEL.call_once(|| {
        if let Some(level) = config.log_level.filter(|_| !log_sink::level_is_chosen()) {
            log::set_max_level(level);
        }
    });
    config
}

impl Log for Face {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        if log_sink::offer(record) {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = String::with_capacity(128);
        // Writing to a String cannot fail; what standard error does not take has nowhere else to go.
        let _always = write!(
            line,
            "{} {} {}/{} {}: {}",
            letter(record.level()),
            timestamp(now.as_secs(), now.subsec_micros()),
            std::process::id(),
            thread_id(),
            record.target(),
            record.args()
        );
        let mut line = line.replace('\n', "\\n");
        line.push('\n');
        let _lost = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

fn letter(level: Level) -> char {
    match level {
        Level::Error => 'E',
        Level::Warn => 'W',
        Level::Info => 'I',
        Level::Debug => 'D',
        Level::Trace => 'T',
    }
}

fn thread_id() -> libc::pid_t {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::gettid() }
}

/// UTC time in ISO 8601. The calendar is computed here: the C library's `localtime_r` takes a lock that a
/// fork could leave held.
fn timestamp(seconds: u64, micros: u32) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Civil date from a day count: eras of 400 years, years that begin in March so that the leap day is last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        assert_eq!(timestamp(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(timestamp(951_782_400, 1), "2000-02-29T00:00:00.000001Z");
        assert_eq!(timestamp(951_868_799, 999_999), "2000-02-29T23:59:59.999999Z");
        assert_eq!(timestamp(951_868_800, 0), "2000-03-01T00:00:00.000000Z");
        assert_eq!(timestamp(1_735_689_599, 0), "2024-12-31T23:59:59.000000Z");
        assert_eq!(timestamp(4_107_542_400, 0), "2100-03-01T00:00:00.000000Z");
    }
}
