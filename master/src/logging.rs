//! The log: one line per event in the form that tools for upstream's log read, to stderr or to a file.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;

struct Logger {
    file: Option<Mutex<File>>,
    stderr: bool,
}

/// Starts logging.
///
/// # Errors
/// The file cannot be made.
pub fn start(directory: &str, stderr: bool, level: LevelFilter) -> std::io::Result<()> {
    let file = if directory.is_empty() {
        None
    } else {
        let name = format!("mooncake_master.{}.{}", stamp().replace([':', ' '], "-"), std::process::id());
        let path = Path::new(directory).join(&name);
        let file = File::create(&path)?;
        let link = Path::new(directory).join("mooncake_master.INFO");
        // The link is a convenience: an old one goes, and a system without links has none.
        let linked = std::fs::remove_file(&link).is_ok() | std::os::unix::fs::symlink(&name, &link).is_ok();
        if !linked {
            log::debug!("{} could not be made", link.display());
        }
        Some(Mutex::new(file))
    };
    let stderr = stderr || file.is_none();
    if log::set_boxed_logger(Box::new(Logger { file, stderr })).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let letter = match record.level() {
            Level::Error => 'E',
            Level::Warn => 'W',
            Level::Info => 'I',
            Level::Debug | Level::Trace => 'D',
        };
        let place = record.file().and_then(|file| file.rsplit('/').next()).unwrap_or("?");
        let line = format!("{letter}{} {place}:{}] {}\n", stamp(), record.line().unwrap_or(0), record.args());
        // A log that cannot be written has nobody to tell.
        if let Some(file) = &self.file {
            drop(file.lock().write_all(line.as_bytes()));
        }
        if self.stderr {
            drop(std::io::stderr().write_all(line.as_bytes()));
        }
    }

    fn flush(&self) {}
}

/// Month, day and time of now in UTC, as `1122 12:34:56.789012`.
fn stamp() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since.as_secs();
    let (month, day) = month_and_day(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{month:02}{day:02} {hour:02}:{minute:02}:{second:02}.{:06}", since.subsec_micros())
}

/// Month and day of a day of the Gregorian calendar, counted from 1 January 1970.
fn month_and_day(days: u64) -> (u64, u64) {
    // Years are taken to begin in March, so that the leap day ends them.
    let days = days + 719_468;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    (if month < 10 { month + 3 } else { month - 9 }, day)
}

#[cfg(test)]
mod tests {
    use super::month_and_day;

    #[test]
    fn days_of_the_calendar() {
        for (days, date) in
            [(0, (1, 1)), (58, (2, 28)), (59, (3, 1)), (364, (12, 31)), (11_016, (2, 29)), (20_779, (11, 22))]
        {
            assert_eq!(month_and_day(days), date, "{days}");
        }
    }
}
