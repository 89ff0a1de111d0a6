//! The line that `ASCEND_TRANSPORT_PRINT=1` asks for, one for each group of a batch that went one way.
//!
//! `peer NAME write bytes 4096 blocks 2 extents 1 route direct link HCCS plan 12 us submit 30 us execute 80 us 0.05 GB/s
//! modelled 12 us`: words and numbers in this order, for people and for scripts; a dash for what is not known.

use std::fmt;
use std::time::Duration;

use crate::plan::{Direction, Route};
use crate::transport::Request;

/// What a group of blocks took.
pub struct Line<'a> {
    /// What was moved.
    pub request: &'a Request,
    /// How it went.
    pub route: Route,
    /// Over which link, as printed; staged requests learn of it by their channel's costs, and copies inside the
    /// process have none.
    pub link: &'static str,
    /// From its acceptance to the first call of the vendor's: waiting for a channel and for others included.
    pub planning: Duration,
    /// In calls of the vendor's that submit; staged requests do not sum it up over their threads.
    pub submitting: Option<Duration>,
    /// From the first call to the end of the last.
    pub executing: Duration,
    /// What the table of costs says it takes, in microseconds; not known before there is a channel, and for the staged
    /// part of a split group.
    pub modelled_us: Option<f64>,
}

/// The caller's blocks in a request: an extent that goes on with a block that another has begun does not count it.
fn blocks(request: &Request) -> u64 {
    request
        .extents()
        .iter()
        .map(|extent| u64::from(extent.task_count).saturating_sub(u64::from(extent.skip_bytes > 0)))
        .fold(0, u64::saturating_add)
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.request.length_bytes();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = bytes as f64 / self.executing.as_secs_f64().max(1e-9) / 1e9;
        write!(
            formatter,
            "peer {} {} bytes {bytes} blocks {} extents {} route {} link {} plan {} us submit {} us execute {} us \
             {rate:.2} GB/s modelled {} us",
            self.request.job().peer,
            match self.request.direction() {
                Direction::Read => "read",
                Direction::Write => "write",
            },
            blocks(self.request),
            self.request.extents().len(),
            self.route.name(),
            self.link,
            self.planning.as_micros(),
            or_dash(self.submitting.map(|time| time.as_micros().to_string())),
            self.executing.as_micros(),
            or_dash(self.modelled_us.map(|time| format!("{time:.0}"))),
        )
    }
}
