//! What goes wrong again and again, said now and then.

use std::time::Duration;

use tokio::time::Instant;

/// How long one complaint is not repeated. Who looks into the log of a host that has been trying for a week shall find it there,
/// and not only it.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Both ports of a relay, several of its addresses: a handful of complaints take turns. Beyond so many the oldest is news again.
const COMPLAINTS_MAX: usize = 8;

/// What was complained of, and when.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    /// The one said last comes last.
    said: Vec<(String, Instant)>,
}

impl Complaints {
    /// Whether `message` is to be said, as it was not for a minute; it is taken for said then.
    pub(crate) fn is_news(&mut self, message: &str, now: Instant) -> bool {
        if let Some(index) = self.said.iter().position(|(said, _)| said == message) {
            if self.said.get(index).is_some_and(|(_, at)| now.duration_since(*at) < SAY_AGAIN) {
                return false;
            }
            self.said.remove(index);
        } else if self.said.len() == COMPLAINTS_MAX {
            self.said.remove(0);
        }
        self.said.push((message.to_owned(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_said_once_a_minute() {
        let mut complaints = Complaints::default();
        let start = Instant::now();
        assert!(complaints.is_news("refused", start));
        assert!(complaints.is_news("timed out", start + Duration::from_secs(1)));
        assert!(!complaints.is_news("refused", start + Duration::from_secs(59)));
        assert!(complaints.is_news("refused", start + Duration::from_secs(60)));
        assert!(!complaints.is_news("timed out", start + Duration::from_secs(60)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut complaints = Complaints::default();
        let start = Instant::now();
        for number in 0..1000 {
            assert!(complaints.is_news(&number.to_string(), start));
        }
        assert_eq!(complaints.said.len(), COMPLAINTS_MAX);
    }
}
