//! `exitReason` as a manager knows it.

use serde::{Deserialize, Serialize};

/// The highest reason that VDSM ever defined.
const HIGHEST: i64 = 14;

/// Why a VM exited, in VDSM's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitReason {
    /// 0 to 14.
    Known(u8),
    /// The host did not send one: it is older than the field.
    NotSent,
    /// The host sent a number that this manager does not know, being older than the host.
    Foreign(i64),
}

impl ExitReason {
    /// From what stood in the reply.
    pub fn read(number: Option<i64>) -> Self {
        match number {
            None => Self::NotSent,
            Some(number @ 0..=HIGHEST) => Self::Known(u8::try_from(number).expect("0 to 14 fits")),
            Some(number) => Self::Foreign(number),
        }
    }

    /// The number that the host sent, known or not.
    pub fn sent(self) -> Option<i64> {
        match self {
            Self::Known(number) => Some(i64::from(number)),
            Self::Foreign(number) => Some(number),
            Self::NotSent => None,
        }
    }

    /// The number, or the placeholder -1 for *value unknown*, which is never on the wire.
    pub fn or_placeholder(self) -> i32 {
        match self {
            Self::Known(number) => i32::from(number),
            Self::NotSent | Self::Foreign(_) => -1,
        }
    }
}
